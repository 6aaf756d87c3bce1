//! Text in columns. No borders, two blanks between columns, colours that do not count as width.

use anstyle::Style;

/// One field of a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    /// In a line of text.
    pub(crate) fn shown(&self) -> String {
        let style = self.style;
        format!("{style}{}{style:#}", self.text)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Rows under a head.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        let head = head.iter().map(|text| Cell::styled(*text, Style::new().dimmed())).collect();
        Self { rows: vec![head] }
    }

    /// A table without a head.
    pub(crate) fn bare() -> Self {
        Self { rows: vec![] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n| self.rows.iter().filter_map(|row| row.get(n)).map(|c: &Cell| c.text.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (n, cell) in row.iter().enumerate().take(last + 1) {
                let style = cell.style;
                out.push_str(&format!("{style}{}{style:#}", cell.text));
                if n < last {
                    out.extend(std::iter::repeat_n(' ', widths[n] + 2 - cell.text.chars().count()));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// Names and values of one thing, the values in one column.
#[derive(Debug, Default)]
pub(crate) struct Block {
    rows: Vec<(&'static str, Cell)>,
}

impl Block {
    pub(crate) fn line(&mut self, name: &'static str, value: impl Into<Cell>) -> &mut Self {
        self.rows.push((name, value.into()));
        self
    }

    /// Left out where there is nothing to say.
    pub(crate) fn maybe(&mut self, name: &'static str, value: Option<impl Into<Cell>>) -> &mut Self {
        if let Some(value) = value {
            self.line(name, value);
        }
        self
    }

    pub(crate) fn text(&self, title: &str) -> String {
        let bold = Style::new().bold();
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut out = format!("{bold}{title}{bold:#}\n");
        for (name, Cell { text, style }) in &self.rows {
            for (n, line) in text.lines().enumerate() {
                let name = if n == 0 { name } else { "" };
                out.push_str(&format!("  {name:width$}  {style}{line}{style:#}\n"));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let mut table = Table::new(&["SERVICE", "STATE", "VERSION"]);
        table.row(["redis".into(), Cell::styled("running", Style::new().bold()), "7.0.15".into()]);
        table.row(["python-api@vault".into(), "stopped".into(), "".into()]);
        insta::assert_snapshot!(anstream::adapter::strip_str(&table.text()).to_string(), @r"
        SERVICE           STATE    VERSION
        redis             running  7.0.15
        python-api@vault  stopped
        ");
    }
}
