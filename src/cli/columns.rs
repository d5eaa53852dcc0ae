//! Columns for people, as kubectl prints them.

use std::time::Duration;

/// A table: a heading and rows, two spaces between columns, no blanks at the end of a line.
#[derive(Debug)]
pub(super) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    pub(super) fn push<const N: usize>(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| if cell.is_empty() { "-".into() } else { cell }).to_vec());
    }

    pub(super) fn render(&self) -> String {
        let count = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..count).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
            cells.join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

/// `42s`, `5m12s`, `3h4m`, `9d3h`.
pub(super) fn age(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Words with commas between them.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_are_marked() {
        let mut table = Columns::new(["PEER", "STATE"]);
        table.push(["a-long-name".into(), "Idle".into()]);
        table.push(["b".into(), String::new()]);
        assert_eq!(table.render(), "PEER         STATE\na-long-name  Idle\nb            -\n");
    }

    #[test]
    fn ages_have_two_units() {
        assert_eq!([59, 312, 11_040, 788_400].map(|s| age(Duration::from_secs(s))), ["59s", "5m12s", "3h4m", "9d3h"]);
    }
}
