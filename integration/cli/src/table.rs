//! Figures in columns.

/// A table with a title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// For a terminal.
    pub(super) fn text(&self) -> String {
        let header: Vec<&str> = self.header.iter().map(String::as_str).collect();
        format!("{}\n{}", self.title, columns(&header, &self.rows))
    }

    /// For a page in Markdown, with the title as a heading.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let ruler: Vec<&str> = (0..self.header.len())
            .map(|column| if column == 0 { "---" } else { "---:" })
            .collect();
        let mut lines = vec![
            format!("### {}\n", self.title),
            line(&self.header),
            format!("|{}|", ruler.join("|")),
        ];
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines.join("\n")
    }
}

/// Lines of text for people: the first column to the left, the others to the right.
pub(super) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(header[column].chars().count())
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let cells = cells.iter().zip(&widths).enumerate();
        let cells = cells.map(|(column, (cell, &width))| match column {
            0 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    let mut lines = vec![line(header)];
    for row in rows {
        lines.push(line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    lines.join("\n")
}

/// A figure that there may be none of.
pub(super) fn figure(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".into(), |number| format!("{number:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["pp8".into(), "1.5".into()], vec!["tg128".into()]];
        assert_eq!(
            columns(&["test", "tokens/s"], &rows),
            "test   tokens/s\npp8         1.5\ntg128"
        );
        assert_eq!(
            (figure(None, 1), figure(Some(2.25), 1)),
            ("-".into(), "2.2".into())
        );
    }

    #[test]
    fn tables_are_told_to_terminals_and_pages() {
        let texts = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        let table = Table {
            title: "Speed".into(),
            header: texts(["test", "ms"]),
            rows: vec![texts(["pp8", "10"])],
        };
        assert_eq!(table.text(), "Speed\ntest  ms\npp8   10");
        assert_eq!(
            table.markdown(),
            "### Speed\n\n| test | ms |\n|---|---:|\n| pp8 | 10 |"
        );
    }
}
