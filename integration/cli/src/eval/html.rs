//! One page with everything: plots of what is lost against what is held, tables, where loss lies in a text, and what heads kept.
use std::fmt::Write as _;

use anyhow::Result;
use mistralrs_kv::Report;

use super::{
    record::{Key, Record, Records},
    summary::Row,
};
use crate::plot::{Line, Titles, lines};

/// Scored tokens of a text that one point of a line stands for.
const BLOCK: usize = 32;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What policies lose and save</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1d2230; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.8rem; text-align: right; border-bottom: 1px solid #e1e4ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; }
.maps svg { max-width: 28rem; }
</style>
"#;

/// The page.
pub(super) fn page(model: &str, rows: &[Row], records: &Records) -> Result<String> {
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>{}: what policies lose and save</h1>\n\
         <p>Bytes are those of the pages held at the end, as a share of what the full cache holds of the same text. Intervals hold \
         a figure with 95&nbsp;% confidence. Answers that the full cache does not give are not counted.</p>\n",
        escaped(model)
    );
    for group in rows.chunk_by(|a, b| (&a.task, a.question) == (&b.task, b.question)) {
        let title = title(&group[0]);
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n{}",
            escaped(&title),
            plot(&title, group)?
        );
        table(&mut page, group);
    }
    page.push_str(&by_position(records)?);
    page.push_str(&maps(records));
    Ok(page)
}

fn title(row: &Row) -> String {
    match row.perplexity {
        Some(_) => format!("{}: going on behind what is compressed", row.task),
        None => format!("{}, {}", row.task, row.question.title()),
    }
}

/// Quality over bytes: a line for each policy, from its smallest cache to its largest.
fn plot(title: &str, rows: &[Row]) -> Result<String> {
    let is_text = rows[0].perplexity.is_some();
    let mut all: Vec<Line> = Vec::new();
    for row in rows {
        let figure = if is_text { row.perplexity } else { row.score };
        let Some(figure) = figure else { continue };
        let point = (100.0 * row.held(), figure.value);
        match all.iter_mut().find(|line| line.name == row.cache.policy) {
            Some(line) => line.points.push(point),
            None => all.push(Line {
                name: row.cache.policy.clone(),
                points: vec![point],
            }),
        }
    }
    for line in &mut all {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let y = if is_text {
        "perplexity"
    } else {
        "share of answers given"
    };
    let x = "bytes held, % of the full cache's";
    lines(Titles { title, x, y }, &all)
}

fn table(page: &mut String, rows: &[Row]) {
    let what = if rows[0].perplexity.is_some() {
        "perplexity"
    } else {
        "answers given"
    };
    let _ = writeln!(
        page,
        "<table><tr><th>policy<th>budget<th>held<th>{what}<th>95 %<th>KL, nats<th>same top token</tr>"
    );
    for row in rows {
        let figure = row.perplexity.or(row.score);
        let (value, range) = figure.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |e| {
                (
                    format!("{:.2}", e.value),
                    format!("{:.2} to {:.2}", e.low, e.high),
                )
            },
        );
        let short = |figure: Option<kv_eval::stats::Estimate>| {
            figure.map_or_else(|| "-".to_owned(), |e| format!("{:.3}", e.value))
        };
        let _ = writeln!(
            page,
            "<tr><td>{}<td>{}<td>{:.1} %<td>{value}<td>{range}<td>{}<td>{}</tr>",
            escaped(&row.cache.policy),
            escaped(&row.cache.budget),
            100.0 * row.held(),
            short(row.divergence),
            short(row.agreement)
        );
    }
    page.push_str("</table>\n");
}

/// How much likelier the full cache finds a text's tokens, along the text: a plot for each budget.
fn by_position(records: &Records) -> Result<String> {
    let mut page = String::new();
    let texts = records.all().filter(|record| record.exact.is_empty());
    let texts: Vec<&Record> = texts.collect();
    let mut budgets: Vec<&str> = texts
        .iter()
        .map(|record| record.key.cache.budget.as_str())
        .collect();
    budgets.sort_unstable();
    budgets.dedup();
    for budget in budgets.into_iter().filter(|&budget| budget != "full") {
        let of_budget = texts
            .iter()
            .filter(|record| record.key.cache.budget == budget);
        let all: Vec<Line> = of_budget
            .filter_map(|record| {
                let full = records.get(&record.key.of_full())?;
                Some(Line {
                    name: record.key.cache.policy.clone(),
                    points: loss(&record.nll, &full.nll),
                })
            })
            .collect();
        let title = format!("Loss along the text at {budget}");
        let titles = Titles {
            title: &title,
            x: "tokens behind what was compressed",
            y: "nats above the full cache",
        };
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n{}",
            escaped(&title),
            lines(titles, &all)?
        );
    }
    Ok(page)
}

/// Means over blocks, at their middles.
#[expect(clippy::cast_precision_loss, reason = "a few hundred tokens")]
fn loss(nll: &[f64], full: &[f64]) -> Vec<(f64, f64)> {
    let blocks = nll.chunks(BLOCK).zip(full.chunks(BLOCK)).enumerate();
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    blocks
        .map(|(index, (nll, full))| {
            let middle = index * BLOCK + nll.len() / 2;
            (middle as f64, mean(nll) - mean(full))
        })
        .collect()
}

/// What each head kept of the first item, cache by cache.
fn maps(records: &Records) -> String {
    let Some(first) = records.all().next() else {
        return String::new();
    };
    let is_first = |key: &Key| {
        (&key.task, &key.item, key.question)
            == (&first.key.task, &first.key.item, first.key.question)
    };
    let mut page = format!(
        "<h2>What heads kept</h2>\n<p>Of {}, {}.</p>\n<div class=\"maps\">\n",
        escaped(&first.key.task),
        escaped(&first.key.item)
    );
    for record in records.all().filter(|record| is_first(&record.key)) {
        let report = Report {
            policy: record.key.cache.policy.clone(),
            budget: record.key.cache.budget.clone(),
            notice: None,
            prompt_tokens: record.cached_tokens,
            // The last token generated is in no page.
            generated_tokens: 1,
            text: String::new(),
            pages_held_peak: record.pages_held,
            pages_full: record.pages_full,
            bytes_held_peak: record.held_bytes,
            bytes_full: record.full_bytes,
            kept: record.kept.clone(),
        };
        page.push_str(&report.picture());
        page.push('\n');
    }
    page.push_str("</div>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{caches::FULL, record::tests::record, summary::rows},
        *,
    };

    #[test]
    fn page_has_plots_tables_and_maps() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(folder.path(), &0).expect("opens");
        for (policy, budget) in [(FULL, "full"), ("h2o", "25%"), ("h2o", "10%")] {
            records
                .add(record(policy, budget, "1", true))
                .expect("writes");
            let mut text = record(policy, budget, "2", true);
            text.key.task = "text".into();
            text.exact.clear();
            records.add(text).expect("writes");
        }
        let page = page("a <model>", &rows(&records), &records).expect("draws");
        // Two tasks, the loss at two budgets, and three maps.
        assert_eq!(page.matches("<svg").count(), 7, "{page}");
        assert_eq!(page.matches("<table").count(), 2);
        assert!(page.contains("a &lt;model&gt;") && !page.contains("a <model>"));
        assert!(page.contains("Loss along the text at 10%"));
    }
}
