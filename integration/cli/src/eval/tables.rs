//! Rows as tables for people: an overview of each budget, and every task by itself.
use std::collections::BTreeMap;

use kv_eval::stats::Estimate;

use super::{
    caches::{FULL, FULL_BUDGET},
    record::{CacheName, Question},
    summary::{Row, by_size},
};
use crate::table::Table;

/// What a budget does to every task, in a table for each budget; the best policies first. Baselines with other policies' bytes stand in
/// [`details`].
pub(super) fn overview(rows: &[Row]) -> Vec<Table> {
    let mut groups: Vec<(&str, Question)> = rows.iter().map(Row::group).collect();
    groups.dedup();
    let mut budgets: Vec<&str> = rows.iter().map(|row| row.cache.budget.as_str()).collect();
    budgets.sort_by(|a, b| by_size(a, b));
    budgets.dedup();
    let budgets = budgets.into_iter().filter(|&budget| budget != FULL_BUDGET);
    budgets
        .map(|budget| {
            let is_in = |row: &&Row| row.cache.policy == FULL || row.cache.budget == budget;
            let mut caches: BTreeMap<&CacheName, Vec<&Row>> = BTreeMap::new();
            let all = rows.iter().filter(|row| row.cache.bytes_of.is_none());
            for row in all.filter(is_in) {
                caches.entry(&row.cache).or_default().push(row);
            }
            let mut caches: Vec<Vec<&Row>> = caches.into_values().collect();
            caches.sort_by(|a, b| mean_loss(a).total_cmp(&mean_loss(b)));
            let lines = caches.iter().map(|of_cache| {
                let mut line = vec![of_cache[0].cache.title(), held(of_cache)];
                line.extend(groups.iter().map(|&group| {
                    let row = of_cache.iter().find(|row| row.group() == group);
                    row.map_or_else(|| "-".to_owned(), |row| short(row))
                }));
                line
            });
            let titles = groups
                .iter()
                .map(|&(task, question)| heading(task, question));
            Table {
                title: format!("Budget {budget}"),
                header: ["policy".to_owned(), "held".to_owned()]
                    .into_iter()
                    .chain(titles)
                    .collect(),
                rows: lines.collect(),
            }
        })
        .collect()
}

/// What a policy loses over all tasks with answers; of text alone, its perplexity.
#[expect(clippy::cast_precision_loss, reason = "a few tasks")]
fn mean_loss(rows: &[&Row]) -> f64 {
    let answers = rows.iter().filter(|row| !row.is_text());
    let losses: Vec<f64> = answers.map(|row| row.loss()).collect();
    match losses.len() {
        0 => rows.iter().map(|row| row.loss()).sum(),
        count => losses.iter().sum::<f64>() / count as f64,
    }
}

/// From the least to the most that it held of any task.
fn held(rows: &[&Row]) -> String {
    let shares = || rows.iter().map(|row| 100.0 * row.held());
    let (low, high) = (
        shares().fold(f64::INFINITY, f64::min),
        shares().fold(0.0, f64::max),
    );
    if high - low < 1.0 {
        format!("{high:.0} %")
    } else {
        format!("{low:.0} to {high:.0} %")
    }
}

fn short(row: &Row) -> String {
    let quality = row.quality();
    quality.map_or_else(
        || "-".to_owned(),
        |Estimate { value, .. }| format!("{value:.2}"),
    )
}

fn heading(task: &str, question: Question) -> String {
    match question {
        Question::Outside => task.to_owned(),
        other => format!("{task}, {}", other.name()),
    }
}

/// A table for each task and way of asking.
pub(super) fn details(rows: &[Row]) -> Vec<Table> {
    rows.chunk_by(|a, b| a.group() == b.group())
        .map(|group| {
            let what = if group[0].is_text() {
                "perplexity"
            } else {
                "given"
            };
            let header = [
                "policy",
                "budget",
                "held",
                "MiB",
                what,
                "KL",
                "same top token",
            ];
            Table {
                title: title(group),
                header: header.map(str::to_owned).into(),
                rows: group.iter().map(line).collect(),
            }
        })
        .collect()
}

/// What a group of rows is about.
pub(super) fn title(group: &[Row]) -> String {
    let (task, question) = group[0].group();
    if group[0].is_text() {
        return format!("{task}: going on behind what is compressed");
    }
    // What is drawn several times is asked several times.
    let full = group.iter().find(|row| row.cache.policy == FULL);
    let answers = full.map_or(0, |row| row.answers);
    let question = question.title();
    format!("{task}, {question}: {answers} answers that the full cache gives")
}

fn line(row: &Row) -> Vec<String> {
    let figure = |figure: Option<Estimate>, decimals: usize| {
        figure.map_or_else(
            || "-".to_owned(),
            |Estimate { value, low, high }| {
                format!("{value:.decimals$} ({low:.decimals$} to {high:.decimals$})")
            },
        )
    };
    vec![
        row.cache.title(),
        row.cache.budget.clone(),
        format!("{:.1} %", 100.0 * row.held()),
        format!("{:.2}", row.bytes().0 / f64::from(1 << 20)),
        figure(row.quality(), 2),
        figure(row.divergence, 3),
        figure(row.agreement, 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            record::{Records, tests::record},
            summary::rows,
        },
        *,
    };

    #[test]
    fn tables_have_every_row_and_the_best_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(folder.path(), &0).expect("opens");
        for (policy, budget, exact) in [
            (FULL, "full", true),
            ("h2o", "25%", false),
            ("tova", "25%", true),
            ("tova", "5%", true),
        ] {
            records
                .add(record(policy, budget, "1", exact))
                .expect("writes");
        }
        let rows = rows(&records);
        let titles = |tables: &[Table]| -> Vec<String> {
            tables.iter().map(|table| table.title.clone()).collect()
        };
        let budgets = overview(&rows);
        assert_eq!(titles(&budgets), ["Budget 25%", "Budget 5%"]);
        assert_eq!(budgets[0].header, ["policy", "held", "passkey"]);
        assert_eq!(
            budgets[0].rows,
            [
                [FULL, "25 %", "1.00"],
                ["tova", "25 %", "1.00"],
                ["h2o", "25 %", "0.00"]
            ]
        );
        let tasks = details(&rows);
        assert_eq!(
            titles(&tasks),
            ["passkey, question behind what is compressed: 1 answers that the full cache gives"]
        );
        assert_eq!(tasks[0].rows.len(), 4);
    }
}
