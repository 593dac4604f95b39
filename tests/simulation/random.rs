//! Randomness that is the same for the same seed, on every machine and with every version of every dependency: a seed that
//! once broke a promise is kept, and has to mean the same for ever.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A generator of its own, so that more draws here do not change what is drawn there.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// Below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        match limit {
            0 => 0,
            limit => ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64,
        }
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Evenly over the orders of magnitude from `low` (at least 1) to `high`.
    pub fn spread(&mut self, low: u64, high: u64) -> u64 {
        let (low_bits, high_bits) = (low.ilog2(), high.ilog2());
        let bits = self.between(low_bits.into(), high_bits.into());
        (1u64 << bits).saturating_add(self.below(1 << bits)).clamp(low, high)
    }

    /// True this many times in a million.
    pub fn chance(&mut self, ppm: u64) -> bool {
        // Drawn even for 0, so that a rate changes what happens and not what is drawn after it.
        self.below(1_000_000) < ppm
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        bytes
    }
}

#[test]
fn the_same_seed_means_the_same_for_ever() {
    let mut random = Random::new(7);
    let drawn = [
        random.next(),
        random.below(1_000),
        random.spread(1, 1_000),
        random.fork().next(),
    ];
    assert_eq!(drawn, [7_191_089_600_892_374_487, 16, 810, 13_421_559_708_072_451_632]);
}
