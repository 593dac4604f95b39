//! How the story reads: headings, paragraphs, tables, on standard output.

use std::{
    fmt,
    io::{self, IsTerminal, Stdout, Write},
};

/// Where a paragraph is broken.
const LINE_CHARS: usize = 96;
const INDENT: &str = "   ";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// The teller.
pub struct Tell {
    out: Stdout,
    /// Whether anyone would see colours.
    styled: bool,
    steps: usize,
}

impl Tell {
    /// On standard output; without colours unless that is a terminal.
    pub fn new() -> Tell {
        let out = io::stdout();
        Tell {
            styled: out.is_terminal(),
            out,
            steps: 0,
        }
    }

    /// The next step of the story.
    pub fn step(&mut self, title: &str) -> io::Result<()> {
        self.steps += 1;
        let title = format!("{}. {title}", self.steps);
        self.heading(&title)
    }

    /// A heading.
    pub fn heading(&mut self, title: &str) -> io::Result<()> {
        let title = self.style(BOLD, title);
        writeln!(self.out, "\n{title}\n")
    }

    /// A paragraph.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        for line in wrapped(text, LINE_CHARS - INDENT.len()) {
            writeln!(self.out, "{INDENT}{line}")?;
        }
        writeln!(self.out)
    }

    /// A table, or anything else of several lines.
    pub fn show(&mut self, what: &impl fmt::Display) -> io::Result<()> {
        for line in what.to_string().lines() {
            writeln!(self.out, "{INDENT}{INDENT}{line}")?;
        }
        writeln!(self.out)
    }

    /// Something that is not as it must be.
    pub fn differs(&mut self, text: &str) -> io::Result<()> {
        let text = self.style(RED, &format!("DIFFERS: {text}"));
        writeln!(self.out, "{INDENT}{text}")
    }

    /// One line as it is.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    fn style(&self, style: &str, text: &str) -> String {
        if self.styled {
            format!("{style}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

fn wrapped(text: &str, chars: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= chars {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_broken_between_words() {
        assert_eq!(wrapped("one two  three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
