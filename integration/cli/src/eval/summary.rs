//! Many figures in one row for each task and cache.
use std::collections::BTreeMap;

use kv_eval::stats::{Estimate, mean, share};
use serde::Serialize;

use super::{
    caches::FULL,
    record::{CacheName, Key, Question, Record, Records},
};
use crate::table::columns;

/// Neighbouring tokens that are drawn together where a mean's uncertainty is estimated.
const BLOCK: usize = 32;
const SEED: u64 = 1;

/// A task under a cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) task: String,
    pub(super) question: Question,
    #[serde(flatten)]
    pub(super) cache: CacheName,
    /// Bytes of pages held, and that the full cache holds, as means over the items.
    pub(super) held_bytes: f64,
    pub(super) full_bytes: f64,
    /// Answers that count: those that the full cache gives.
    pub(super) answers: usize,
    /// The share of them that are given, with 95 % confidence.
    pub(super) score: Option<Estimate>,
    /// Over the scored tokens of a text.
    pub(super) perplexity: Option<Estimate>,
    /// Divergence from the full cache in nats, over the scored tokens.
    pub(super) divergence: Option<Estimate>,
    /// The share of tokens for which the most likely one is the full cache's.
    pub(super) agreement: Option<Estimate>,
}

impl Row {
    /// Bytes held as a share of the full cache's.
    pub(super) fn held(&self) -> f64 {
        self.held_bytes / self.full_bytes.max(1.0)
    }
}

/// A row for each task, way of asking and cache.
pub(super) fn rows(records: &Records) -> Vec<Row> {
    let mut groups: BTreeMap<(String, Question, CacheName), Vec<&Record>> = BTreeMap::new();
    for record in records.all() {
        let Key {
            task,
            question,
            cache,
            ..
        } = record.key.clone();
        groups
            .entry((task, question, cache))
            .or_default()
            .push(record);
    }
    let rows = groups
        .into_iter()
        .filter_map(|((task, question, cache), of_group)| {
            row(records, task, question, cache, &of_group)
        });
    let mut rows: Vec<Row> = rows.collect();
    // The best first, the full cache on top.
    let better = |row: &Row| match (&row.score, &row.perplexity) {
        (Some(score), _) => -score.value,
        (_, Some(perplexity)) => perplexity.value,
        _ => 0.0,
    };
    rows.sort_by(|a, b| {
        let place = |row: &Row| (row.task.clone(), row.question, row.cache.policy != FULL);
        place(a)
            .cmp(&place(b))
            .then(b.cache.budget.cmp(&a.cache.budget))
            .then(better(a).total_cmp(&better(b)))
    });
    rows
}

fn row(
    records: &Records,
    task: String,
    question: Question,
    cache: CacheName,
    of_group: &[&Record],
) -> Option<Row> {
    let (mut given, mut answers) = (0, 0);
    let (mut nll, mut divergence, mut agrees) = (Vec::new(), Vec::new(), Vec::new());
    let (mut held, mut full_bytes, mut items) = (0, 0, 0_u32);
    let is_text = of_group.iter().all(|record| record.exact.is_empty());
    for record in of_group {
        let full = records.get(&record.key.of_full())?;
        let solved = full.exact.iter().zip(&record.exact);
        let counted: Vec<bool> = solved
            .filter(|(full, _)| **full)
            .map(|(_, given)| *given)
            .collect();
        if !is_text && counted.is_empty() {
            continue;
        }
        items += 1;
        held += record.held_bytes;
        full_bytes += record.full_bytes;
        answers += counted.len();
        given += counted.iter().filter(|given| **given).count();
        nll.extend_from_slice(&record.nll);
        divergence.extend_from_slice(&record.divergence);
        agrees.extend(
            record
                .agrees
                .iter()
                .map(|&agrees| f64::from(u8::from(agrees))),
        );
    }
    if items == 0 {
        return None;
    }
    let average = |sum: usize| float(sum) / f64::from(items);
    Some(Row {
        task,
        question,
        cache,
        held_bytes: average(held),
        full_bytes: average(full_bytes),
        answers,
        score: share(given, answers),
        perplexity: mean(&nll, BLOCK, SEED)
            .filter(|_| is_text)
            .map(|nll| nll.map(f64::exp)),
        divergence: mean(&divergence, BLOCK, SEED),
        agreement: mean(&agrees, BLOCK, SEED),
    })
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a cache")]
fn float(count: usize) -> f64 {
    count as f64
}

/// Tables for people, one for each task and way of asking.
pub(super) fn text(rows: &[Row]) -> String {
    let mut tables = Vec::new();
    for group in rows.chunk_by(|a, b| (&a.task, a.question) == (&b.task, b.question)) {
        let question = group[0].question.title();
        let title = if group[0].perplexity.is_some() {
            group[0].task.clone()
        } else {
            let answers = group.iter().map(|row| row.answers).max().unwrap_or(0);
            format!(
                "{}, {question}: {answers} answers that the full cache gives",
                group[0].task
            )
        };
        let figure = |figure: Option<Estimate>, decimals: usize| {
            figure.map_or_else(
                || "-".to_owned(),
                |Estimate { value, low, high }| {
                    format!("{value:.decimals$} ({low:.decimals$} to {high:.decimals$})")
                },
            )
        };
        let lines = group.iter().map(|row| {
            vec![
                row.cache.policy.clone(),
                row.cache.budget.clone(),
                format!("{:.1} %", 100.0 * row.held()),
                format!("{:.2}", row.held_bytes / f64::from(1 << 20)),
                match row.perplexity {
                    Some(_) => figure(row.perplexity, 2),
                    None => figure(row.score, 2),
                },
                figure(row.divergence, 3),
                figure(row.agreement, 2),
            ]
        });
        let lines: Vec<Vec<String>> = lines.collect();
        let what = if group[0].perplexity.is_some() {
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
        tables.push(format!("{title}\n{}", columns(&header, &lines)));
    }
    tables.join("\n\n")
}

/// All rows as comma-separated values.
pub(super) fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "task,question,policy,budget,held_bytes,full_bytes,answers,score,score_low,score_high,\
         perplexity,perplexity_low,perplexity_high,divergence,divergence_low,divergence_high,\
         agreement,agreement_low,agreement_high\n",
    );
    for row in rows {
        let mut cells = vec![
            quoted(&row.task),
            row.question.name().to_owned(),
            row.cache.policy.clone(),
            row.cache.budget.clone(),
            row.held_bytes.to_string(),
            row.full_bytes.to_string(),
            row.answers.to_string(),
        ];
        for estimate in [row.score, row.perplexity, row.divergence, row.agreement] {
            let numbers = estimate.map(|e| [e.value, e.low, e.high]);
            let numbers = numbers.map(|numbers| numbers.map(|number| number.to_string()));
            cells.extend(numbers.unwrap_or_default());
        }
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// A cell that may have anything in it: tasks of files have the files' names.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests::record, *};

    fn records() -> (tempfile::TempDir, Records) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut records = Records::open(folder.path(), &0).expect("opens");
        for (policy, budget, item, exact) in [
            (FULL, "full", "1", true),
            (FULL, "full", "2", true),
            (FULL, "full", "3", false),
            ("h2o", "25%", "1", true),
            ("h2o", "25%", "2", false),
            ("tova", "25%", "1", true),
            ("tova", "25%", "2", true),
        ] {
            records
                .add(record(policy, budget, item, exact))
                .expect("writes");
        }
        (folder, records)
    }

    #[test]
    fn only_what_the_full_cache_solves_counts() {
        let (_folder, records) = records();
        let rows = rows(&records);
        let told: Vec<_> = rows
            .iter()
            .map(|row| {
                let score = row.score.expect("answers");
                (row.cache.policy.as_str(), row.answers, score.value)
            })
            .collect();
        assert_eq!(told, [(FULL, 2, 1.0), ("tova", 2, 1.0), ("h2o", 2, 0.5)]);
        assert!(
            rows.iter()
                .all(|row| row.held() == 0.25 && row.perplexity.is_none())
        );
    }

    #[test]
    fn tables_and_values_have_every_row() {
        let (_folder, records) = records();
        let rows = rows(&records);
        let (text, csv) = (text(&rows), csv(&rows));
        assert!(text.starts_with("passkey, question behind"), "{text}");
        for policy in [FULL, "h2o", "tova"] {
            assert!(text.contains(policy) && csv.contains(policy), "{text}{csv}");
        }
        let widths: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(widths, [19; 4], "{csv}");
        assert_eq!(quoted("a, \"b\""), "\"a, \"\"b\"\"\"");
    }
}
