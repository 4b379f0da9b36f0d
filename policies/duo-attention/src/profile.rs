//! How much each head retrieves: the authors' `full_attention_heads.tsv` and the `config.json` beside it.
use std::path::Path;

use kv_core::{ConfigError, Geometry, PolicyConfig, ProfileFile};
use serde_json::{Map, Value};

use crate::{DuoAttentionConfig, config::NEUTRAL};

const TABLE: &str = "full_attention_heads.tsv";
const SIZES: &str = "config.json";

/// Larger files are no profile. The authors' have about 25 bytes for each head.
const LARGEST: u64 = 16 << 20;

/// The values are saved before they are clipped to 0 to 1 and may lie a little outside; further out, the file is another.
const LEAST: f64 = -1.0;
const MOST: f64 = 2.0;

/// What a profile says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    /// How much a head retrieves, from 0 to 1, `[L][H]`.
    pub(crate) values: Vec<Vec<f64>>,
    /// Sinks of its training.
    pub(crate) sinks: Option<usize>,
    /// Window of its training.
    pub(crate) recent: Option<usize>,
}

impl Profile {
    /// Every other head, like the squares of a chess board.
    pub(crate) fn neutral(geometry: &Geometry) -> Self {
        let value =
            |layer: usize, head: usize| f64::from(u8::from((layer + head).is_multiple_of(2)));
        let row = |layer| {
            (0..geometry.kv_heads)
                .map(|head| value(layer, head))
                .collect()
        };
        Self {
            values: (0..geometry.layers).map(row).collect(),
            sinks: None,
            recent: None,
        }
    }

    /// Reads the table at a path or in the folder at it, and the sizes beside it if they are wanted and there.
    pub(crate) fn read(
        path: &str,
        geometry: &Geometry,
        wants_sizes: bool,
    ) -> Result<Self, ConfigError> {
        let path = Path::new(path);
        let path = if path.is_dir() {
            path.join(TABLE)
        } else {
            path.to_owned()
        };
        let table = ProfileFile::new(DuoAttentionConfig::NAME, "profile", path, LARGEST);
        let expected = format!("`{NEUTRAL}`, a {TABLE} or the folder that holds it");
        let values = parse_table(&table.read(&expected)?, &table, geometry)?;
        let beside = table.beside(SIZES);
        let (sinks, recent) = if wants_sizes && beside.path().exists() {
            parse_sizes(&beside, geometry.max_positions)?
        } else {
            (None, None)
        };
        Ok(Self {
            values,
            sinks,
            recent,
        })
    }
}

/// `L` lines of `H` numbers; blank lines do not count.
fn parse_table(
    text: &str,
    source: &ProfileFile,
    geometry: &Geometry,
) -> Result<Vec<Vec<f64>>, ConfigError> {
    let Geometry {
        layers, kv_heads, ..
    } = *geometry;
    let mut rows = Vec::with_capacity(layers);
    let lines = text.lines().enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        if rows.len() == layers {
            return Err(source.wrong(
                format!("line {}", index + 1),
                "another row",
                format!("the end: one row for each of the model's {layers} layers"),
            ));
        }
        rows.push(parse_row(line, index + 1, source, kv_heads)?);
    }
    if rows.len() < layers {
        return Err(source.wrong(
            "at the end",
            format!("{} rows", rows.len()),
            format!("{layers}: one for each layer of the model"),
        ));
    }
    Ok(rows)
}

fn parse_row(
    line: &str,
    number: usize,
    source: &ProfileFile,
    kv_heads: usize,
) -> Result<Vec<f64>, ConfigError> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if columns.len() != kv_heads {
        return Err(source.wrong(
            format!("line {number}"),
            format!("{} columns", columns.len()),
            format!("{kv_heads}: one for each KV head of a layer"),
        ));
    }
    let cell = |(index, text): (usize, &&str)| {
        let place = || format!("line {number}, column {}", index + 1);
        match text.parse::<f64>() {
            Ok(value) if (LEAST..=MOST).contains(&value) => Ok(value.clamp(0.0, 1.0)),
            Ok(_) => Err(source.wrong(
                place(),
                ProfileFile::quoted(text),
                format!("a number from 0 to 1, or at least from {LEAST} to {MOST}"),
            )),
            Err(_) => Err(source.wrong(place(), ProfileFile::quoted(text), "a number")),
        }
    };
    columns.iter().enumerate().map(cell).collect()
}

/// Sinks and window that the profile was trained with; all other keys are the authors' own business.
fn parse_sizes(
    source: &ProfileFile,
    max_positions: usize,
) -> Result<(Option<usize>, Option<usize>), ConfigError> {
    let text = source.read("a JSON object")?;
    let fields: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| source.malformed(&error, "a JSON object"))?;
    let size = |key: &str, least: u64| {
        match fields.get(key) {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .filter(|&size| size >= least)
            .and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size < max_positions)
            .map(Some)
            .ok_or_else(|| {
                source.wrong(
                    format!("`{key}`"),
                    ProfileFile::quoted(&value.to_string()),
                    format!(
                        "a whole number of tokens from {least}, below the {max_positions} positions of the model"
                    ),
                )
            }),
    }
    };
    Ok((size("sink_size", 0)?, size("recent_size", 1)?))
}
