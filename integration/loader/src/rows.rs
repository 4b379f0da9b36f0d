//! What a layer's question carries besides scores: positions, and the parts of a prompt that a policy reads.
use kv_core::{LayerView, Needs, Phase, Position, PromptRows, Reads, Rotation, TokenClass};

use crate::{
    messages::{Layer, Rows, Turns},
    wire::{Numbers, Taken},
};

/// Packs a view for a policy of these needs. `sent` is the rotation that the program knows.
///
/// # Panics
///
/// If the view lacks what the policy reads, as reading it would.
pub(crate) fn pack(
    view: &LayerView<'_>,
    needs: &Needs,
    sent: &mut Option<Rotation>,
) -> (Layer, Numbers) {
    let mut numbers = Numbers::default();
    let held = |head| 0..view.len(head);
    let (mut lens, mut rows) = (None, None);
    if view.has_positions() {
        lens = Some((0..view.heads()).map(|head| view.len(head)).collect());
        for head in 0..view.heads() {
            numbers.words(held(head).map(|slot| view.position(head, slot).0.to_le_bytes()));
        }
    }
    if view.phase == Phase::Prefill && needs.reads.any() {
        rows = Some(pack_rows(view, needs.reads, sent, &mut numbers));
    }
    let layer = Layer {
        layer: view.layer,
        phase: view.phase,
        heads: view.heads(),
        prompt: view.prompt,
        budget: view.budget,
        lens,
        rows,
    };
    (layer, numbers)
}

fn pack_rows(
    view: &LayerView<'_>,
    reads: Reads,
    sent: &mut Option<Rotation>,
    numbers: &mut Numbers,
) -> Rows {
    let heads = 0..view.heads();
    if reads.queries {
        for head in 0..view.heads() * view.group() {
            numbers.floats(view.queries(head));
        }
    }
    if reads.keys {
        for head in heads.clone() {
            numbers.floats(view.keys(head));
        }
    }
    if reads.values {
        for head in heads.clone() {
            numbers.floats(view.values(head));
        }
    }
    if reads.output_norms {
        for head in heads {
            numbers.floats(view.output_norms(head));
        }
    }
    if reads.classes {
        let classes = view.classes().iter();
        numbers.words(classes.map(|class| code(*class).to_le_bytes()));
    }
    let rotation = reads
        .rotation
        .then(|| pack_rotation(view.rotation(), sent, numbers));
    Rows {
        head_dim: view.head_dim(),
        group: view.group(),
        scale: view.scale().to_string(),
        softcap: view.softcap().map(|cap| cap.to_string()),
        rotation,
    }
}

fn pack_rotation(rotation: &Rotation, sent: &mut Option<Rotation>, numbers: &mut Numbers) -> Turns {
    if sent.as_ref() == Some(rotation) {
        return Turns::Same;
    }
    let positions = rotation.positions();
    for position in 0..positions {
        numbers.floats(rotation.angles(position).0);
    }
    for position in 0..positions {
        numbers.floats(rotation.angles(position).1);
    }
    *sent = Some(rotation.clone());
    Turns::By {
        pairs: rotation.pairs(),
        positions,
        // With a single pair there is no difference.
        is_adjacent: rotation.dims(0).1 == 1 && rotation.pairs() > 1,
    }
}

const fn code(class: TokenClass) -> u32 {
    match class {
        TokenClass::Plain => 0,
        TokenClass::Special => 1,
        TokenClass::Punctuation => 2,
    }
}

fn class([code, ..]: [u8; 4]) -> TokenClass {
    match code {
        1 => TokenClass::Special,
        2 => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    }
}

/// A layer as it arrived.
#[derive(Debug)]
pub(crate) struct Shown {
    /// In mid-decode and of a prompt that comes in chunks, `[H][T]`.
    positions: Option<Vec<Vec<Position>>>,
    rows: Option<ShownRows>,
}

#[derive(Debug)]
struct ShownRows {
    said: Rows,
    scale: f32,
    softcap: Option<f32>,
    queries: Option<Vec<f32>>,
    keys: Option<Vec<f32>>,
    values: Option<Vec<f32>>,
    output_norms: Option<Vec<f32>>,
    classes: Option<Vec<TokenClass>>,
}

impl Shown {
    /// Unpacks what [`pack`] packed; `None` if the numbers are not those that the layer says. A new rotation is kept in `known`.
    pub(crate) fn unpack(
        layer: &Layer,
        reads: Reads,
        known: &mut Option<Rotation>,
        mut numbers: Taken<'_>,
    ) -> Option<Self> {
        let positions = match &layer.lens {
            Some(lens) => Some(numbers.rows(lens, |word| Position(u32::from_le_bytes(word)))?),
            None => None,
        };
        let rows = match &layer.rows {
            Some(rows) => Some(unpack_rows(layer, rows, reads, known, &mut numbers)?),
            None => None,
        };
        numbers.is_empty().then_some(Self { positions, rows })
    }

    /// Shows the layer, without scores.
    pub(crate) fn view<R>(
        &self,
        layer: &Layer,
        rotation: Option<&Rotation>,
        show: impl FnOnce(LayerView<'_>) -> R,
    ) -> R {
        let rows = self.rows.as_ref().map(|rows| PromptRows {
            head_dim: rows.said.head_dim,
            group: rows.said.group,
            rows: layer.stride(),
            scale: rows.scale,
            softcap: rows.softcap,
            queries: rows.queries.as_deref(),
            keys: rows.keys.as_deref(),
            values: rows.values.as_deref(),
            rotation: rotation.filter(|_| rows.said.rotation.is_some()),
            output_norms: rows.output_norms.as_deref(),
            classes: rows.classes.as_deref(),
        });
        let heads: Option<Vec<&[Position]>> = self
            .positions
            .as_ref()
            .map(|heads| heads.iter().map(Vec::as_slice).collect());
        let prompt = || LayerView::prefill(layer.layer, layer.heads, layer.prompt, layer.budget);
        let view = match (&heads, layer.phase) {
            (None, _) => prompt(),
            (Some(heads), Phase::Prefill) => prompt().with_positions(heads),
            (Some(heads), Phase::Decode) => {
                LayerView::decode(layer.layer, heads, layer.prompt, layer.budget)
            }
        };
        match &rows {
            None => show(view),
            Some(rows) => show(view.with_rows(rows)),
        }
    }
}

/// Rows of heads that hold `lens` tokens, each head padded to `stride` rows.
fn padded(
    numbers: &mut Taken<'_>,
    (lens, stride): (&[usize], usize),
    width: usize,
) -> Option<Vec<f32>> {
    let mut all = Vec::new();
    for (head, &len) in (1..).zip(lens) {
        all.extend(numbers.floats(len.checked_mul(width)?)?);
        all.resize(stride.checked_mul(width)?.checked_mul(head)?, 0.0);
    }
    Some(all)
}

fn unpack_rows(
    layer: &Layer,
    rows: &Rows,
    reads: Reads,
    known: &mut Option<Rotation>,
    numbers: &mut Taken<'_>,
) -> Option<ShownRows> {
    let (held, dim) = (layer.held(), rows.head_dim);
    let of_queries = vec![layer.prompt; layer.heads.checked_mul(rows.group)?];
    let mut part = |is_read: bool, lens: &[usize], width: usize| match is_read {
        true => padded(numbers, (lens, layer.stride()), width).map(Some),
        false => Some(None),
    };
    let queries = part(reads.queries, &of_queries, dim)?;
    let keys = part(reads.keys, &held, dim)?;
    let values = part(reads.values, &held, dim)?;
    let output_norms = part(reads.output_norms, &held, 1)?;
    let classes = match reads.classes {
        true => Some(numbers.words(layer.prompt, class)?),
        false => None,
    };
    if let Some(Turns::By {
        pairs,
        positions,
        is_adjacent,
    }) = rows.rotation
    {
        let count = pairs.checked_mul(positions).filter(|_| pairs > 0)?;
        let (cos, sin) = (numbers.floats(count)?, numbers.floats(count)?);
        *known = Some(Rotation::new(pairs, cos, sin, is_adjacent));
    }
    let softcap = match &rows.softcap {
        Some(cap) => Some(cap.parse().ok()?),
        None => None,
    };
    Some(ShownRows {
        said: rows.clone(),
        scale: rows.scale.parse().ok()?,
        softcap,
        queries,
        keys,
        values,
        output_norms,
        classes,
    })
}
