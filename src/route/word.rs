//! Words of an endpoint: where each ends, and whether it is an id.

/// Longer words, in bytes, count as ids.
const WORD_BYTES_MAX: usize = 64;

// Classes of bytes as bits, so that a word's classes can be combined.
const DELIMITER: u8 = 1;
const DIGIT: u8 = 2;
/// Letters a to f.
const HEX: u8 = 4;
const LOWER: u8 = 8;
const UPPER: u8 = 16;
/// Characters that join the parts of a word.
const JOINT: u8 = 32;
const AT: u8 = 64;
const OTHER: u8 = 128;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'/' | b' ' | b':' | b';' | b'=' | b'(' | b')' | b'\'' | b'?' | b'#' => DELIMITER,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX | LOWER,
            b'A'..=b'F' => HEX | UPPER,
            b'g'..=b'z' => LOWER,
            b'G'..=b'Z' => UPPER,
            b'-' | b'_' | b'.' | b'~' | b',' | b'+' => JOINT,
            b'@' => AT,
            _ => OTHER,
        };
        byte += 1;
    }
    table
}

/// End of the word that begins at `start`, and the classes of its bytes.
pub(super) fn word_end(bytes: &[u8], start: usize) -> (usize, u8) {
    let mut classes = 0;
    let mut end = start;
    while let Some(&byte) = bytes.get(end) {
        let class = CLASSES[byte as usize];
        if class == DELIMITER {
            break;
        }
        classes |= class;
        end += 1;
    }
    (end, classes)
}

/// How many bytes of `word` are an id: none, all, or those before a file extension (`42.json`).
pub(super) fn id_length(word: &[u8], classes: u8) -> usize {
    // Most words are names in the API: letters and joints only.
    if classes & (DIGIT | AT | OTHER) == 0 && word.len() <= WORD_BYTES_MAX {
        return 0;
    }
    if is_id(word) {
        return word.len();
    }
    match word.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if is_ending(&word[dot + 1..]) && is_id(&word[..dot]) => dot,
        _ => 0,
    }
}

fn is_ending(text: &[u8]) -> bool {
    (2..=5).contains(&text.len()) && text.iter().all(u8::is_ascii_lowercase)
}

/// Whether `word` identifies one object among many of its kind.
fn is_id(word: &[u8]) -> bool {
    if word.len() > WORD_BYTES_MAX {
        return true;
    }
    let mut all = Counts::default();
    let mut before_run = Counts::default();
    let mut random_run = false;
    let mut last = 0;
    let mut first = 0;
    for &byte in word {
        let class = CLASSES[byte as usize];
        if class & JOINT != 0 {
            random_run |= all.since(before_run).is_random(first, before_run.is_prefix());
            all.add(class, last);
            before_run = all;
            last = 0;
        } else {
            all.add(class, last);
            first = if last == 0 { class } else { first };
            last = class;
        }
    }
    let run = all.since(before_run);
    if random_run || run.is_random(first, before_run.is_prefix()) {
        return true;
    }
    // An e-mail address, with `@` or `%40`; not `@me`.
    if all.at() == 1 && !word.starts_with(b"@") || all.other() > 0 && word.windows(3).any(|part| part == b"%40") {
        return true;
    }
    if all.digits() == 0 || all.at() + all.other() > 0 {
        return false;
    }
    if all.lower() + all.upper() == 0 {
        // Numbers, dates, addresses and lists of them; not the `1.1` of a version.
        return !is_version(word);
    }
    let one_case = all.lower() == 0 || all.upper() == 0;
    // UUIDs and hashes, with or without joints. Seven hexadecimal digits may be a word (`ed25519`).
    let hex = all.hex() + all.digits();
    hex + all.joints() == word.len() as u8 && hex >= 8
        // A name and a number: `user-42`, `order_1009`; not `phase-2`, not `GetDistribution2020_05_31`.
        || run.digits() >= 2 && run.lower() + run.upper() == 0 && all.joints() > 0 && one_case
        // Short ids of capitals and digits: `U012AB3CD`, `EXAMPLE1A2B3`.
        || all.lower() == 0 && all.digits() >= 3 && word.len() >= 8
}

/// Number of bytes in each class, one byte per counter: one addition counts a byte in all of its classes. Words are too
/// short to overflow a counter.
#[derive(Clone, Copy, Default)]
struct Counts {
    classes: u64,
    /// Number of times that a capital follows a small letter, a digit a letter or a letter a digit.
    breaks: u8,
}

const _: () = assert!(WORD_BYTES_MAX < 256);

impl Counts {
    fn add(&mut self, class: u8, last: u8) {
        let turns = last != 0 && (last ^ class) & DIGIT != 0;
        // The highest byte counts changes between letters and digits.
        self.classes += COUNTED[class as usize] + (u64::from(turns) << 56);
        self.breaks += u8::from(turns || last & LOWER != 0 && class & UPPER != 0);
    }

    const fn since(self, before: Self) -> Self {
        Self { classes: self.classes - before.classes, breaks: self.breaks - before.breaks }
    }

    const fn of(self, class: u8) -> u8 {
        (self.classes >> (8 * (class.trailing_zeros() - 1))) as u8
    }

    const fn digits(self) -> u8 {
        self.of(DIGIT)
    }

    const fn hex(self) -> u8 {
        self.of(HEX)
    }

    const fn lower(self) -> u8 {
        self.of(LOWER)
    }

    const fn upper(self) -> u8 {
        self.of(UPPER)
    }

    const fn joints(self) -> u8 {
        self.of(JOINT)
    }

    const fn at(self) -> u8 {
        self.of(AT)
    }

    const fn other(self) -> u8 {
        self.of(OTHER)
    }

    const fn turns(self) -> u8 {
        (self.classes >> 56) as u8
    }

    /// A prefix that names the kind of an id, such as `cus_` and `acct_`: small letters and a joint.
    const fn is_prefix(self) -> bool {
        self.joints() == 1 && self.lower() >= 2 && self.lower() <= 6 && self.digits() + self.upper() + self.other() == 0
    }

    /// Whether letters and digits are mixed as in random ids, in a run whose first byte has class `first`. A name with
    /// a number (`ListFunctions20150331`, `GetFunction20150331v2`) changes between letters and digits at most three
    /// times. A name of several words (`ListKeysV2`) has at most three breaks in ten letters; random letters and digits
    /// have one at nearly every second position.
    fn is_random(self, first: u8, prefixed: bool) -> bool {
        let length = self.digits() + self.lower() + self.upper();
        let both_cases = self.lower() > 0 && self.upper() > 0 && self.digits() > 0;
        let mixed = self.digits() >= 2 && self.turns() >= 4 && length >= 10;
        let broken = both_cases && length >= 10 && u16::from(self.breaks) * 20 >= u16::from(length) * 7;
        let after_prefix = prefixed && both_cases && length >= 14;
        // A name does not have the form `0015g00000XyZab`.
        let from_digit = first & DIGIT != 0 && self.digits() >= 3 && self.digits() < length && length >= 10;
        let capitals = self.digits() >= 1 && self.lower() == 0 && length >= 16;
        self.at() + self.other() == 0 && (mixed || broken || after_prefix || from_digit || capitals)
    }
}

/// For each set of classes, the number to add to [`Counts`]: DIGIT in the lowest byte, OTHER in the seventh.
const COUNTED: [u64; 256] = counted();

const fn counted() -> [u64; 256] {
    let mut table = [0; 256];
    let mut classes = 0;
    while classes < 256 {
        let mut bit = 1;
        while bit < 8 {
            if classes & (1 << bit) != 0 {
                table[classes] |= 1 << (8 * (bit - 1));
            }
            bit += 1;
        }
        classes += 1;
    }
    table
}

/// `api`, `rest`, `v2`, `v1beta1`, `1.0`.
pub(super) fn is_version(word: &[u8]) -> bool {
    match word {
        b"api" | b"rest" => true,
        [b'v' | b'V', digit, ..] => word.len() <= 10 && digit.is_ascii_digit(),
        [a, b'.', b] => a.is_ascii_digit() && b.is_ascii_digit(),
        _ => false,
    }
}
