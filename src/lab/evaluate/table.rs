//! Tables for a terminal and for a documentation page.

use std::fmt::Write as _;

use crate::sanitize;

/// Figures under one heading.
pub(super) struct Table {
    pub(super) title: String,
    /// Explanation of the figures.
    pub(super) note: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// Plain text with aligned columns.
pub(super) fn to_text(head: &str, tables: &[Table]) -> String {
    let mut text = format!("{head}\n");
    for table in tables {
        put(&mut text, format_args!("\n{}\n", table.title));
        text.push_str(&wrapped(&table.note));
        table.aligned(&mut text);
    }
    text
}

/// Markdown tables with headings of the third level.
pub(super) fn to_markdown(head: &str, tables: &[Table]) -> String {
    let mut text = escaped(head) + "\n";
    for table in tables {
        put(&mut text, format_args!("\n### {}\n\n", escaped(&table.title)));
        if !table.note.is_empty() {
            put(&mut text, format_args!("{}\n\n", escaped(&table.note)));
        }
        table.markdown(&mut text);
    }
    text
}

impl Table {
    /// Text columns are aligned left, numeric columns right.
    fn aligned(&self, out: &mut String) {
        let columns = self.header.len();
        let lines: Vec<&Vec<String>> = std::iter::once(&self.header).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for line in lines {
            let mut text = String::new();
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                if self.is_numeric(column) {
                    put(&mut text, format_args!("  {cell:>width$}"));
                } else {
                    put(&mut text, format_args!("  {cell:<width$}"));
                }
            }
            put(out, format_args!("{}\n", text.trim_end()));
        }
    }

    fn markdown(&self, out: &mut String) {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        out.push_str(&line(self.header.iter().map(|cell| escaped(cell)).collect()));
        let rule = |column| if self.is_numeric(column) { "--:" } else { "---" }.to_owned();
        out.push_str(&line((0..self.header.len()).map(rule).collect()));
        for row in &self.rows {
            out.push_str(&line(row.iter().map(|cell| escaped(cell)).collect()));
        }
    }

    fn is_numeric(&self, column: usize) -> bool {
        self.rows.iter().all(|row| row[column].starts_with(|c: char| c.is_ascii_digit() || c == '–'))
    }
}

/// `text` in lines of at most 100 characters; longer words are not split.
fn wrapped(text: &str) -> String {
    let (mut lines, mut length) = (String::new(), 0);
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if length > 0 && length + 1 + width > 100 {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += width;
    }
    if length > 0 {
        lines.push('\n');
    }
    lines
}

/// `text` without characters that end a cell, begin an HTML element or control a terminal.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '|' | '<' | '`' | '\\' => shown.extend(['\\', character]),
            '\n' => shown.push(' '),
            other => shown.push(sanitize::shown(other)),
        }
    }
    shown
}

pub(super) fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_keeps_every_word() {
        let note = "word ".repeat(45);
        let lines = wrapped(&note);
        // Twenty words of four letters and the spaces between them have 99 characters.
        assert_eq!(lines.lines().map(str::len).collect::<Vec<_>>(), [99, 99, 24]);
        assert_eq!(lines.split_whitespace().count(), 45);
        assert_eq!(wrapped(""), "");
    }

    #[test]
    fn tables_align_and_escape_cells() {
        let table = Table {
            title: String::new(),
            note: String::new(),
            header: vec!["theft".to_owned(), "cases".to_owned()],
            rows: vec![vec!["a|b<i>".to_owned(), "7".to_owned()], vec!["c\nd".to_owned(), "123".to_owned()]],
        };
        let (mut text, mut markdown) = (String::new(), String::new());
        table.aligned(&mut text);
        table.markdown(&mut markdown);
        assert!(text.starts_with("  theft   cases\n  a|b<i>      7\n"), "{text}");
        assert_eq!(markdown, "| theft | cases |\n| --- | --: |\n| a\\|b\\<i> | 7 |\n| c d | 123 |\n");
    }
}
