//! Tables: readable on a terminal, and as Markdown.

use std::fmt;

/// Rows of cells, aligned when shown: the first two columns to the left, numbers to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    /// One row more, as long as the headings.
    pub fn add(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        self.rows.push(cells);
    }

    /// Whether there is nothing but headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

/// Columns of text.
const TEXTS: usize = 2;

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0..TEXTS => write!(out, "| {cell:width$} ")?,
                    _ => write!(out, "| {cell:>width$} ")?,
                }
            }
            writeln!(out, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width + 1);
                    if column < TEXTS { write!(out, "|{dashes}-")? } else { write!(out, "|{dashes}:")? }
                }
                writeln!(out, "|")?;
            }
        }
        Ok(())
    }
}

/// A large number, in groups of three digits.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count for each operation: two digits behind the point as long as they matter.
pub fn per_operation(count: u64, operations: u64) -> String {
    let each = count as f64 / operations as f64;
    if each < 100.0 { format!("{each:.2}") } else { grouped(each) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(&["case", "by", "op/s"]);
        assert!(table.is_empty());
        table.add(vec!["ping".into(), "farref".into(), grouped(1234567.4)]);
        let shown = "\
| case | by     |      op/s |
|------|--------|----------:|
| ping | farref | 1,234,567 |
";
        assert_eq!(table.to_string(), shown);
    }

    #[test]
    fn numbers_are_grouped_and_counts_rounded() {
        assert_eq!(["7", "123", "1,000", "12,345", "123,456"], [7.0, 123.0, 1e3, 12_345.0, 123_456.0].map(grouped));
        assert_eq!(per_operation(5, 2), "2.50");
        assert_eq!(per_operation(2_500_000, 2), "1,250,000");
    }
}
