//! Where a JSON value ends in a stream of bytes.

use memchr::{memchr2, memchr3};

/// A JSON value over several lines. One that is broken must not swallow what follows: it ends where a line ends in the
/// middle of a string, and where a line begins with an object or array that cannot go on with the line before it. Within
/// an object none can: printers that put a member's value on a line of its own indent it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Value {
    nesting: Nesting,
    /// Whether each of the innermost levels is an object, the innermost in the lowest bit.
    objects: u64,
    /// The last byte before this one that is no white space.
    before: u8,
    /// No byte of this line has been read.
    begins_line: bool,
}

impl Value {
    /// Reads on through `bytes` to the end of the value: the number of bytes up to it.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.nesting.in_string {
                if self.nesting.escaped {
                    self.nesting.escaped = false;
                } else {
                    at += memchr3(b'"', b'\\', b'\n', bytes.get(at..)?)?;
                    match bytes.get(at) {
                        Some(b'\n') => return Some(at),
                        Some(b'"') => self.nesting.in_string = false,
                        _ => self.nesting.escaped = true,
                    }
                }
                self.before = b'"';
            } else {
                let goes_on = self.objects & 1 == 0 && matches!(self.before, b'[' | b',');
                if self.begins_line && matches!(byte, b'{' | b'[') && !goes_on {
                    return Some(at);
                }
                match byte {
                    b'"' => self.nesting.in_string = true,
                    b'{' | b'[' => {
                        self.nesting.depth += 1;
                        self.objects = self.objects << 1 | u64::from(byte == b'{');
                    }
                    b'}' | b']' => {
                        self.nesting.depth = self.nesting.depth.saturating_sub(1);
                        self.objects >>= 1;
                        if self.nesting.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                if !byte.is_ascii_whitespace() {
                    self.before = byte;
                }
            }
            self.begins_line = byte == b'\n';
            at += 1;
        }
        None
    }
}

/// How deep in a JSON text we are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nesting {
    pub depth: usize,
    pub in_string: bool,
    pub escaped: bool,
}

impl Nesting {
    /// Reads on through `bytes` to the end of what is nested: the number of bytes up to it.
    pub(super) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
                self.in_string = bytes.get(at) != Some(&b'"');
                self.escaped = self.in_string;
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
            }
            at += 1;
        }
        None
    }
}
