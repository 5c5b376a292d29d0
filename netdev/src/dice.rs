//! Random numbers for what must not be guessed or must not happen all at once, from the kernel, a handful at a time.

/// Random bytes that are fetched at once.
const POOL: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Dice {
    pool: Vec<u8>,
}

impl Dice {
    pub fn roll(&mut self) -> u32 {
        if self.pool.len() < 4 {
            self.pool.resize(POOL, 0);
            let read =
                std::fs::File::open("/dev/urandom").and_then(|mut f| std::io::Read::read_exact(&mut f, &mut self.pool));
            if let Err(e) = read {
                tracing::warn!(error = %e, "no random numbers");
            }
        }
        let mut word = [0; 4];
        word.fill_with(|| self.pool.pop().unwrap_or(0));
        u32::from_be_bytes(word)
    }
}
