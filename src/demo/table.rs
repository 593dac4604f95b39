//! Plain tables: aligned columns, a line under the head.

use std::fmt;

/// Which side of its column a cell stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head. Every row has as many cells as the head.
#[derive(Clone, Debug)]
pub struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

const GAP: &str = "   ";

impl<const N: usize> Table<N> {
    /// A table without rows. Without any title, it has no head either.
    pub fn new(columns: [(&'static str, Align); N]) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, cells: [&str; N], widths: &[usize; N]) -> fmt::Result {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let width = widths[index];
            if index > 0 {
                line.push_str(GAP);
            }
            match self.columns[index].1 {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        writeln!(f, "{}", line.trim_end())
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: [usize; N] = std::array::from_fn(|index| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells.chain([self.columns[index].0.chars().count()]).max().unwrap_or(0)
        });
        if self.columns.iter().any(|(title, _)| !title.is_empty()) {
            self.write(f, self.columns.map(|(title, _)| title), &widths)?;
            let lines = widths.map(|width| "-".repeat(width));
            self.write(f, lines.each_ref().map(String::as_str), &widths)?;
        }
        for row in &self.rows {
            self.write(f, row.each_ref().map(String::as_str), &widths)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new([("wallet", Align::Left), ("after", Align::Right), ("", Align::Left)]);
        table.row(["Alice".into(), "900.00 USD".into(), String::new()]);
        table.row(["Li Wei, Zürich".into(), "5.00 CNY".into(), "as expected".into()]);
        let expected = "\
wallet                after
--------------   ----------   -----------
Alice            900.00 USD
Li Wei, Zürich     5.00 CNY   as expected
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn a_table_without_titles_has_no_head() {
        let mut table = Table::new([("", Align::Left), ("", Align::Right)]);
        table.row(["fee".into(), "0.30".into()]);
        table.row(["amount".into(), "12.00".into()]);
        assert_eq!(table.to_string(), "fee       0.30\namount   12.00\n");
        assert_eq!(Table::new([("", Align::Left)]).to_string(), "");
    }
}
