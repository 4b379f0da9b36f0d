//! One page with everything: plots of what is lost against what is held, tables, where loss lies in a text, and what heads kept.
use std::fmt::Write as _;

use anyhow::Result;
use mistralrs_kv::Report;

use super::{
    caches::{BASELINES, FULL, FULL_BUDGET},
    record::{Key, Record, Records},
    summary::{Row, by_size},
    tables,
};
use crate::{
    plot::{From, Line, Titles, lines},
    table::Table,
};

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
caption, summary { text-align: left; font-weight: 600; padding: 0.4rem 0; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem; }
.maps svg { max-width: 28rem; }
</style>
"#;

/// Perplexities above so many times the full cache's are in tables only.
const FAR: f64 = 1.3;
/// Lines of a plot besides those that are in every one.
const LINES: usize = 6;

/// The page.
pub(super) fn page(model: &str, rows: &[Row], records: &Records) -> Result<String> {
    let mut page = String::from(HEAD);
    let _ = write!(
        page,
        "<h1>{}: what policies lose and save</h1>\n\
         <p>Bytes are those of the pages held, as a share of what the full cache holds of the same text: at the end, and of a text that much is \
         read behind, when it had been compressed. Intervals hold a figure with 95&nbsp;% confidence. Answers that the full cache does not give \
         are not counted.</p>\n",
        escaped(model)
    );
    for overview in tables::overview(rows) {
        table(&mut page, &overview);
    }
    let details = tables::details(rows);
    for (group, details) in rows.chunk_by(|a, b| a.group() == b.group()).zip(&details) {
        let _ = writeln!(page, "<h2>{}</h2>", escaped(&details.title));
        page.push_str(&plots(&details.title, group)?);
        page.push_str("<details><summary>All figures</summary>\n");
        table(&mut page, details);
        page.push_str("</details>\n");
    }
    page.push_str(&by_position(records)?);
    page.push_str(&maps(records));
    Ok(page)
}

/// Quality over bytes: a line for each policy, from its smallest cache to its largest.
fn plots(title: &str, rows: &[Row]) -> Result<String> {
    let of_full = rows.iter().find(|row| row.cache.policy == FULL);
    let full = of_full.and_then(Row::quality).map_or(0.0, |it| it.value);
    let mut all: Vec<Line> = Vec::new();
    for row in rows {
        let Some(figure) = row.quality() else {
            continue;
        };
        if row.is_text() && figure.value > FAR * full {
            continue;
        }
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
    // The best first, over all budgets.
    let loss = |line: &Line| {
        let of_policy = rows.iter().filter(|row| row.cache.policy == line.name);
        let losses: Vec<f64> = of_policy.map(Row::loss).collect();
        mean(&losses)
    };
    all.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    let (y, from) = if rows[0].is_text() {
        let y = format!("perplexity, up to {FAR} times the full cache's");
        (y, From::Lowest)
    } else {
        ("share of answers given".to_owned(), From::Zero)
    };
    let titles = Titles {
        title,
        x: "bytes held, % of the full cache's",
        y: &y,
        from,
    };
    panels(titles, all)
}

/// Plots of a few lines each, with the full cache and the baselines in every one; all but the first are folded away.
fn panels(titles: Titles<'_>, all: Vec<Line>) -> Result<String> {
    let (always, rest): (Vec<Line>, Vec<Line>) = all
        .into_iter()
        .partition(|line| line.name == FULL || BASELINES.contains(&&*line.name));
    let draw = |rest: &[Line]| {
        let drawn: Vec<Line> = always.iter().chain(rest).cloned().collect();
        lines(titles, &drawn)
    };
    let mut panels = rest.chunks(LINES);
    let mut page = draw(panels.next().unwrap_or_default())?;
    page.push('\n');
    for rest in panels {
        let names: Vec<&str> = rest.iter().map(|line| line.name.as_str()).collect();
        let _ = writeln!(
            page,
            "<details><summary>{}</summary>\n{}\n</details>",
            escaped(&names.join(", ")),
            draw(rest)?
        );
    }
    Ok(page)
}

fn table(page: &mut String, table: &Table) {
    let cells = |tag: &str, cells: &[String]| -> String {
        let cells = cells.iter().map(|cell| format!("<{tag}>{}", escaped(cell)));
        cells.collect()
    };
    let _ = writeln!(
        page,
        "<table><caption>{}</caption>\n<tr>{}</tr>",
        escaped(&table.title),
        cells("th", &table.header)
    );
    for row in &table.rows {
        let _ = writeln!(page, "<tr>{}</tr>", cells("td", row));
    }
    page.push_str("</table>\n");
}

/// How much likelier the full cache finds a text's tokens, along the text: plots for each budget.
fn by_position(records: &Records) -> Result<String> {
    let mut page = String::new();
    let texts = records
        .all()
        .filter(|record| record.exact.is_empty() && record.key.cache.is_main());
    let texts: Vec<&Record> = texts.collect();
    for budget in budgets(texts.iter().copied()) {
        let of_budget = texts
            .iter()
            .filter(|record| record.key.cache.budget == budget);
        let mut all: Vec<Line> = of_budget
            .filter_map(|record| {
                let full = records.get(&record.key.of_full())?;
                Some(Line {
                    name: record.key.cache.policy.clone(),
                    points: loss(&record.nll, &full.nll),
                })
            })
            .collect();
        let total = |line: &Line| line.points.iter().map(|point| point.1).sum::<f64>();
        all.sort_by(|a, b| total(a).total_cmp(&total(b)));
        let title = format!("Loss along the text at {budget}");
        let titles = Titles {
            title: &title,
            x: "tokens behind what was compressed",
            y: "nats above the full cache",
            from: From::Zero,
        };
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n{}",
            escaped(&title),
            panels(titles, all)?
        );
    }
    Ok(page)
}

/// The budgets of some records, the largest first.
fn budgets<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<&'a str> {
    let mut budgets: Vec<&str> = records
        .map(|record| record.key.cache.budget.as_str())
        .filter(|&budget| budget != FULL_BUDGET)
        .collect();
    budgets.sort_by(|a, b| by_size(a, b));
    budgets.dedup();
    budgets
}

#[expect(clippy::cast_precision_loss, reason = "a few numbers")]
fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// Means over blocks, at their middles.
#[expect(clippy::cast_precision_loss, reason = "a few hundred tokens")]
fn loss(nll: &[f64], full: &[f64]) -> Vec<(f64, f64)> {
    let blocks = nll.chunks(BLOCK).zip(full.chunks(BLOCK)).enumerate();
    blocks
        .map(|(index, (nll, full))| {
            let middle = index * BLOCK + nll.len() / 2;
            (middle as f64, mean(nll) - mean(full))
        })
        .collect()
}

/// What each head kept of the longest text, cache by cache.
fn maps(records: &Records) -> String {
    let all = || {
        let all = records.all();
        all.filter(|record| record.key.cache.is_main())
    };
    let Some(longest) = all().max_by_key(|record| record.text_tokens) else {
        return String::new();
    };
    let longest = all().filter(|record| {
        let of = |key: &Key| (key.task.clone(), key.item.clone(), key.question);
        of(&record.key) == of(&longest.key)
    });
    let longest: Vec<&Record> = longest.collect();
    let mut page = format!(
        "<h2>What heads kept</h2>\n<p>Tokens of {} by layer and head, of {}, {}.</p>\n",
        longest[0].text_tokens,
        escaped(&longest[0].key.task),
        escaped(&longest[0].key.item)
    );
    for budget in budgets(longest.iter().copied()) {
        let _ = writeln!(
            page,
            "<details><summary>Budget {}</summary>\n<div class=\"maps\">",
            escaped(budget)
        );
        let of_budget = longest
            .iter()
            .filter(|record| record.key.cache.budget == budget);
        for record in of_budget {
            page.push_str(&picture(record));
            page.push('\n');
        }
        page.push_str("</div></details>\n");
    }
    page
}

fn picture(record: &Record) -> String {
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
    report.picture()
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
        // Two tasks, the loss at two budgets, and two maps.
        assert_eq!(page.matches("<svg").count(), 6, "{page}");
        // Both budgets and both tasks.
        assert_eq!(page.matches("<table").count(), 4);
        assert!(page.contains("a &lt;model&gt;") && !page.contains("a <model>"));
        assert!(page.contains("Loss along the text at 10%"));
    }
}
