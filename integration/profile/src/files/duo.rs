//! `full_attention_heads.tsv`: a row for each layer, a column for each KV head.

/// The table's name.
pub(crate) const TABLE: &str = "full_attention_heads.tsv";
/// The name of what stands beside it.
pub(crate) const SIZES: &str = "config.json";

/// Digits behind the point, as numpy writes them.
const DIGITS: usize = 18;

/// The table.
pub(super) fn table(values: &[Vec<f64>]) -> String {
    let row = |row: &Vec<f64>| {
        let cells: Vec<String> = row.iter().map(|&value| cell(value)).collect();
        cells.join("\t") + "\n"
    };
    values.iter().map(row).collect()
}

/// As C's `%.18e`: a sign and two digits at least in the exponent.
fn cell(value: f64) -> String {
    let text = format!("{value:.DIGITS$e}");
    match text.split_once('e') {
        Some((digits, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// Reads the table back.
pub(super) fn parse(text: &str) -> Result<Vec<Vec<f64>>, String> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = |cell: &str| {
            let value = cell.parse().ok().filter(|value: &f64| value.is_finite());
            value.ok_or_else(|| format!("line {}: `{cell:.40}` is no number", index + 1))
        };
        let row: Vec<f64> = line
            .split_whitespace()
            .map(number)
            .collect::<Result<_, _>>()?;
        match rows.first() {
            _ if row.is_empty() => {}
            Some(first) if first.len() != row.len() => {
                let (found, allowed) = (row.len(), first.len());
                return Err(format!(
                    "line {}: {found} columns; allowed: {allowed}",
                    index + 1
                ));
            }
            _ => rows.push(row),
        }
    }
    if rows.is_empty() {
        return Err("it holds no row".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_those_of_numpy() {
        // What `numpy.savetxt` writes of these.
        for (value, wanted) in [
            (1.0, "1.000000000000000000e+00"),
            (0.1, "1.000000000000000056e-01"),
            (-0.003, "-3.000000000000000062e-03"),
            (0.0, "0.000000000000000000e+00"),
            (1e-300, "1.000000000000000025e-300"),
        ] {
            assert_eq!(cell(value), wanted);
        }
    }

    #[test]
    fn a_table_comes_back_to_the_last_bit() {
        let values = vec![vec![0.1, 1.0 / 3.0], vec![1.000_000_1, -1e-9]];
        assert_eq!(parse(&table(&values)).expect("no error"), values);
        for (text, wanted) in [
            ("", "no row"),
            ("1 2\n3\n", "line 2: 1 columns"),
            ("1 x\n", "`x` is no number"),
            ("1 nan\n", "`nan` is no number"),
        ] {
            let error = parse(text).expect_err("refused");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
