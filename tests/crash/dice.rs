//! Seeded choices, and the only waits for their own sake.
//!
//! Every actor throws dice of its own, made from the seed and its name, so that what one chooses does not depend on how fast
//! another is. Processes are not deterministic: the same seed makes the same choices, not the same run.

use std::{ops::Range, time::Duration};

/// A stream of choices (splitmix64: Steele, Lea, Flood 2014).
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The dice of this actor under this seed.
    pub fn of(seed: u64, actor: &str) -> Self {
        // FNV-1a, so that names that differ a little choose otherwise.
        let name = actor.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state: seed ^ name }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// A number within.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Yes, once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// All of these in some order.
    pub fn shuffled<T: Copy>(&mut self, from: &[T]) -> Vec<T> {
        let mut all = from.to_vec();
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last as u64 + 1) as usize);
        }
        all
    }

    /// Lets some time pass, in milliseconds: the pace of faults and of callers. Whoever waits for something to happen waits
    /// for that, and not here.
    pub async fn pause(&mut self, ms: Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.within(ms))).await;
    }
}

/// Cards that all come up before one comes up again, so that a short run meets every kind.
pub struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    pub fn new(all: &[T]) -> Self {
        Self {
            all: all.to_vec(),
            left: Vec::new(),
        }
    }

    pub fn draw(&mut self, dice: &mut Dice) -> T {
        if self.left.is_empty() {
            self.left = dice.shuffled(&self.all);
        }
        self.left.pop().expect("a deck has cards")
    }

    /// This one came to nothing: it comes up next.
    pub fn put_back(&mut self, card: T) {
        self.left.push(card);
    }
}

#[test]
fn the_same_seed_and_actor_choose_the_same() {
    let choices = |seed, actor| {
        let mut dice = Dice::of(seed, actor);
        (0..20).map(|_| dice.within(5..25)).collect::<Vec<_>>()
    };
    assert_eq!(choices(1, "gateway"), choices(1, "gateway"));
    assert_ne!(choices(1, "gateway"), choices(2, "gateway"));
    assert_ne!(choices(1, "gateway"), choices(1, "weather"));
    assert!(choices(3, "x").iter().all(|choice| (5..25).contains(choice)));
    let mut dice = Dice::of(4, "deck");
    let mut deck = Deck::new(&[1, 2, 3]);
    let mut drawn: Vec<_> = (0..3).map(|_| deck.draw(&mut dice)).collect();
    drawn.sort_unstable();
    assert_eq!(drawn, [1, 2, 3]);
}
