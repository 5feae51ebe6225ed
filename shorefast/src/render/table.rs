//! Plain tables without lines, and sizes as people write them.

use comfy_table::{ContentArrangement, Table, presets};

/// A table without lines: copied into a mail it stays a table.
pub(crate) fn plain_table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `312 MiB`, `4.0 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `12,345,678`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_with_two_or_three_digits() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 10 << 20, 1023 << 20, 1 << 30, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 MiB", "1023 MiB", "1.0 GiB", "16 EiB"]);
    }

    #[test]
    fn counts_have_separators_of_thousands() {
        let shown: Vec<String> = [0, 999, 1000, 12_345, 1_000_000].map(grouped).into();
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "1,000,000"]);
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let text = plain_table(["A", "B"], [["x".to_owned(), "1".to_owned()], ["longer".to_owned(), String::new()]]);
        assert_eq!(text, "A       B\nx       1\nlonger\n");
    }
}
