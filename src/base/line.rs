//! A line of text on the stack, for the few things the allocator says on standard error.

/// Text that is cut off where its room ends; nothing here allocates or formats through std.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    bytes: [u8; 320],
    len: usize,
}

impl Line {
    /// An empty line.
    pub const fn new() -> Self {
        Self { bytes: [0; 320], len: 0 }
    }

    /// Adds text.
    pub fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(slot) = self.bytes.get_mut(self.len) {
                *slot = byte;
                self.len += 1;
            }
        }
    }

    /// Adds text that somebody else wrote: its first 40 bytes, and what does not print as `?`.
    pub fn push_quoted(&mut self, text: &[u8]) {
        const MOST: usize = 40;
        self.push(b"`");
        for &byte in text.iter().take(MOST) {
            self.push(&[if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' }]);
        }
        self.push(if text.len() > MOST { b"...`" } else { b"`" });
    }

    /// Adds a number in hexadecimal digits.
    pub fn push_hex(&mut self, value: usize) {
        let digits = (usize::BITS - (value | 1).leading_zeros()).div_ceil(4);
        for i in (0..digits).rev() {
            self.push(&[b"0123456789abcdef"[(value >> (4 * i)) & 15]]);
        }
    }

    /// Adds a number in decimal digits.
    pub fn push_number(&mut self, value: usize) {
        let digits = value.checked_ilog10().unwrap_or(0);
        for i in (0..=digits).rev() {
            self.push(&[b'0' + (value / 10usize.pow(i) % 10) as u8]);
        }
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Writes it to standard error, with a line end.
    #[cfg(not(spandrel_model))]
    pub fn say(mut self) {
        self.len = self.len.min(self.bytes.len() - 1);
        self.push(b"\n");
        super::quiet::quietly(|| {
            // SAFETY: the buffer is initialised up to `len`; write(2) takes any descriptor and does not
            // allocate. What cannot be said is not said.
            unsafe { libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len) }
        });
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}
