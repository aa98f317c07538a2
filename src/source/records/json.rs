//! Finds the end of a JSON value in a stream of bytes.

use memchr::{memchr2, memchr3};

/// A JSON value over several lines. A broken value must not include the following ones. It ends at a line end within a
/// string, and before a line whose first object or array cannot continue the previous line. Within an object no line
/// can begin so, because printers indent the value of a member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Value {
    nesting: Nesting,
    /// Whether each of the innermost levels is an object; the innermost is in the lowest bit.
    objects: u64,
    /// The last non-space byte before this one.
    before: u8,
    /// No byte of this line has been read yet.
    begins_line: bool,
}

impl Value {
    /// Reads `bytes` up to the end of the value; the number of bytes read.
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

/// Nesting depth in a JSON text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nesting {
    pub(crate) depth: usize,
    pub(crate) in_string: bool,
    pub(crate) escaped: bool,
}

impl Nesting {
    /// Reads `bytes` up to the end of the nested value; the number of bytes read.
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
