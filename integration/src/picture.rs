//! A picture of what the heads of a model kept, or of what else is known of each: a heat map as SVG, which every browser shows.
use std::fmt::{self, Write as _};

/// Space around everything.
const PAD: usize = 24;
/// Space left of the cells, for the numbers of the heads and the name of their axis.
const LEFT: usize = PAD + 40;
/// What a title and the legend need.
const NARROWEST: usize = 440;
/// What the cells of a model fill if they are neither too small nor too large for it.
const AREA: (usize, usize) = (800, 420);
/// Smallest and largest side of a cell.
const SIDES: (usize, usize) = (9, 44);
/// Length of the colour scale, and of one step of it.
const SCALE: usize = 256;
const SCALE_STEP: usize = 2;

const FONT: &str =
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

/// How texts look: dark on a card of its own, so that a page may be white or black.
const TITLE: &str = r##"font-size="16" font-weight="600" fill="#1d2230""##;
const NOTE: &str = r##"font-size="12" fill="#586074""##;
const LEGEND: &str = r##"font-size="12" fill="#1d2230""##;
const AXIS: &str = r##"font-size="12" fill="#1d2230" text-anchor="middle""##;
const BELOW: &str = r##"font-size="11" fill="#586074" text-anchor="middle""##;
const BESIDE: &str = r##"font-size="11" fill="#586074" text-anchor="end""##;

/// What shades stand for.
struct Shades {
    /// What the darkest is.
    whole: usize,
    /// What is counted.
    name: String,
    /// What the rows are.
    rows: String,
    /// What a cell is said to be, of the whole.
    cell: fn(usize, usize) -> String,
    /// What a mark of the scale is said to be, of the whole.
    mark: fn(usize, usize) -> String,
}

/// Cells of numbers from 0 to 1 are shaded in steps of one in so many.
const STEPS: usize = 1000;

/// A heat map of `kept` (`[L][H]`): a column for each layer, a row for each KV head, and a cell's shade is the share of
/// `tokens` that the head kept. `notes` are small lines below.
pub(crate) fn svg(kept: &[Vec<usize>], tokens: usize, title: &str, notes: &[String]) -> String {
    let shades = Shades {
        whole: tokens.max(1),
        name: "tokens kept by a head".into(),
        rows: "KV head".into(),
        cell: |kept, tokens| format!("{kept} of {tokens} tokens"),
        mark: |count, tokens| {
            let all = if count == tokens { " (all)" } else { "" };
            format!("{count}{all}")
        },
    };
    draw(kept, &shades, title, notes)
}

/// A heat map of a number from 0 to 1 for every head, `[L][heads]`, as SVG: a column for each layer, a row for each head. `name` is what the numbers
/// are, `rows` what the heads are, and `notes` small lines below.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 1 in a thousand steps"
)]
pub fn heads_picture(
    values: &[Vec<f64>],
    (name, rows): (&str, &str),
    title: &str,
    notes: &[String],
) -> String {
    let shades = Shades {
        whole: STEPS,
        name: name.into(),
        rows: rows.into(),
        cell: |part, whole| format!("{:.3}", part as f64 / whole as f64),
        mark: |part, whole| format!("{}", part as f64 / whole as f64),
    };
    let step = |value: &f64| (value.clamp(0.0, 1.0) * STEPS as f64).round() as usize;
    let cells: Vec<Vec<usize>> = values
        .iter()
        .map(|heads| heads.iter().map(step).collect())
        .collect();
    draw(&cells, &shades, title, notes)
}

fn draw(cells: &[Vec<usize>], shades: &Shades, title: &str, notes: &[String]) -> String {
    let grid = Grid::new(cells);
    let width = (grid.right() + PAD).max(NARROWEST);
    let titles = wrapped(title, (width - 2 * PAD) / 10);
    let notes = notes
        .iter()
        .flat_map(|note| wrapped(note, (width - 2 * PAD) / 7));

    let mut picture = Picture::default();
    let mut y = PAD - 6;
    for line in titles {
        y += 22;
        picture.text(PAD, y, TITLE, &line);
    }
    let top = y + 16;
    grid.draw(&mut picture, cells, shades, top);
    y = top + grid.height() + 52;
    draw_scale(&mut picture, (LEFT, y), shades);
    y += 44;
    for line in notes {
        y += 17;
        picture.text(PAD, y, NOTE, &line);
    }
    picture.framed(width, y + PAD, title)
}

/// Where the cells are.
struct Grid {
    layers: usize,
    heads: usize,
    /// Side of a cell, the gap to the next one included.
    side: usize,
}

impl Grid {
    fn new(kept: &[Vec<usize>]) -> Self {
        let layers = kept.len();
        let heads = kept.iter().map(Vec::len).max().unwrap_or(0);
        let side = (AREA.0 / layers.max(1)).min(AREA.1 / heads.max(1));
        Self {
            layers,
            heads,
            side: side.clamp(SIDES.0, SIDES.1),
        }
    }

    fn right(&self) -> usize {
        LEFT + self.layers * self.side
    }

    fn height(&self) -> usize {
        self.heads * self.side
    }

    fn draw(&self, picture: &mut Picture, cells: &[Vec<usize>], shades: &Shades, top: usize) {
        let side = self.side;
        let (gap, round) = if side < 14 { (1, 1) } else { (2, 3) };
        picture.line(format_args!(
            "<g stroke=\"#1d2230\" stroke-opacity=\".14\" stroke-width=\".6\">"
        ));
        for (layer, heads) in cells.iter().enumerate() {
            let x = LEFT + layer * side;
            for (head, &part) in heads.iter().enumerate() {
                picture.line(format_args!(
                    "<rect x=\"{x}\" y=\"{}\" width=\"{w}\" height=\"{w}\" rx=\"{round}\" fill=\"{}\"><title>layer {layer}, \
                     head {head}: {said}</title></rect>",
                    top + head * side,
                    colour(part, shades.whole),
                    said = (shades.cell)(part, shades.whole),
                    w = side - gap,
                ));
            }
        }
        picture.line(format_args!("</g>"));
        self.draw_axes(picture, &shades.rows, top, gap);
    }

    fn draw_axes(&self, picture: &mut Picture, rows: &str, top: usize, gap: usize) {
        let side = self.side;
        let middle = |index: usize| (index * side) + (side - gap) / 2;
        let digits = self.layers.saturating_sub(1).to_string().len();
        let bottom = top + self.height();
        for layer in ticks(self.layers, side, 7 * digits + 8) {
            let x = LEFT + middle(layer);
            picture.text(x, bottom + 13, BELOW, &layer.to_string());
        }
        for head in ticks(self.heads, side, 13) {
            let y = top + middle(head) + 4;
            picture.text(LEFT - 8, y, BESIDE, &head.to_string());
        }
        let centre = LEFT + self.layers * side / 2;
        picture.text(centre, bottom + 29, AXIS, "layer");
        // The name is longer than a cell is high.
        let (x, y) = (PAD + 6, top + (self.height() / 2).max(24));
        picture.line(format_args!(
            "<text transform=\"translate({x} {y}) rotate(-90)\" {AXIS}>{rows}</text>"
        ));
    }
}

/// Which of `count` cells are numbered, so that numbers which need `room` each do not touch: every one, every second, fifth
/// or tenth and so on, and the last where there is room.
fn ticks(count: usize, side: usize, room: usize) -> Vec<usize> {
    let steps = (0..).flat_map(|power| [1, 2, 5].map(|step| step * 10_usize.pow(power)));
    let mut steps = steps.skip_while(|step| step * side < room);
    let step = steps.next().unwrap_or(1);
    let mut ticks: Vec<usize> = (0..count).step_by(step).collect();
    let last = count.saturating_sub(1);
    if ticks
        .last()
        .is_some_and(|tick| (last - tick) * side >= room)
    {
        ticks.push(last);
    }
    ticks
}

/// The legend: what the shades mean.
fn draw_scale(picture: &mut Picture, (x, y): (usize, usize), shades: &Shades) {
    let whole = shades.whole;
    picture.text(x, y, LEGEND, &shades.name);
    let top = y + 8;
    picture.line(format_args!("<g shape-rendering=\"crispEdges\">"));
    for from in (0..SCALE).step_by(SCALE_STEP) {
        picture.line(format_args!(
            "<rect x=\"{}\" y=\"{top}\" width=\"{SCALE_STEP}\" height=\"12\" fill=\"{}\"/>",
            x + from,
            colour(from + SCALE_STEP / 2, SCALE)
        ));
    }
    picture.line(format_args!("</g>"));
    picture.line(format_args!(
        "<rect x=\"{x}\" y=\"{top}\" width=\"{SCALE}\" height=\"12\" fill=\"none\" stroke=\"#1d2230\" stroke-opacity=\".3\"/>"
    ));
    let mut marks: Vec<usize> = (0..=4).map(|quarter| whole * quarter / 4).collect();
    marks.dedup();
    for count in marks {
        let x = x + count * SCALE / whole;
        picture.line(format_args!(
            "<path d=\"M{x} {}v4\" stroke=\"#586074\"/>",
            top + 12
        ));
        picture.text(x, top + 28, BELOW, &(shades.mark)(count, whole));
    }
}

/// The shade for a share: from cream over teal to indigo, ever darker, so that it can be told without telling hues. Its
/// square root is what is shown, because budgets are small.
fn colour(part: usize, whole: usize) -> String {
    const ENDS: [[usize; 3]; 3] = [[252, 248, 224], [8, 205, 176], [44, 10, 92]];
    const MOST: usize = 255;
    let share = part.min(whole).saturating_mul(MOST * MOST) / whole.max(1);
    let (more, less) = (share.isqrt(), MOST - share.isqrt());
    let weights = [less * less, 2 * less * more, more * more];
    let channel = |index: usize| {
        let mixed = weights.iter().zip(ENDS).map(|(w, end)| w * end[index]);
        mixed.sum::<usize>() / (MOST * MOST)
    };
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}

/// The elements drawn so far.
#[derive(Default)]
struct Picture(String);

impl Picture {
    fn line(&mut self, element: fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = writeln!(self.0, "{element}");
    }

    fn text(&mut self, x: usize, y: usize, style: &str, text: &str) {
        let text = escaped(text);
        self.line(format_args!(
            "<text x=\"{x}\" y=\"{y}\" {style}>{text}</text>"
        ));
    }

    /// The whole file: the elements on a card of their own, as wide as there is room for and not wider than it needs.
    fn framed(self, width: usize, height: usize, label: &str) -> String {
        let (label, w, h) = (escaped(label), width - 1, height - 1);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"100%\" \
             style=\"max-width: {width}px\" font-family=\"{FONT}\" role=\"img\" aria-label=\"{label}\">\n\
             <rect x=\".5\" y=\".5\" width=\"{w}\" height=\"{h}\" rx=\"10\" fill=\"#ffffff\" stroke=\"#d3d8e0\"/>\n\
             {}</svg>\n",
            self.0
        )
    }
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_whitespace() => escaped.push(' '),
            // No XML may hold these, however they are written.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A text in lines of at most `most` characters; a longer word is broken.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word: Vec<char> = word.chars().collect();
        for piece in word.chunks(most.max(1)) {
            let piece: String = piece.iter().collect();
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + piece.chars().count() <= most => {
                    line.push(' ');
                    line.push_str(&piece);
                }
                _ => lines.push(piece),
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Reads XML as strictly as this picture needs it and returns the names of its elements, or what is wrong.
    fn elements(xml: &str) -> Result<Vec<&str>, String> {
        let (mut open, mut names) = (Vec::new(), Vec::new());
        for part in xml.split('<').skip(1) {
            let (tag, _) = part.split_once('>').ok_or("a tag without end")?;
            let is_known = |text: &str| {
                matches!(
                    text.split_once(';'),
                    Some(("amp" | "lt" | "gt" | "quot", _))
                )
            };
            let is_bad = |c: char| c.is_control() && c != '\n';
            if part.contains(is_bad) || !part.split('&').skip(1).all(is_known) {
                return Err(format!("`{part}` is not escaped"));
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("`</{name}>` closes another element"));
                }
                continue;
            }
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            let pieces: Vec<&str> = attributes.trim_end_matches('/').split('"').collect();
            let mut keys = pieces.iter().step_by(2).rev();
            if pieces.len().is_multiple_of(2)
                || keys.next() != Some(&"")
                || !keys.all(|key| key.ends_with('='))
            {
                return Err(format!("attributes in `{tag}`"));
            }
            names.push(name.trim_end_matches('/'));
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        let unclosed = open.pop().map(|name| format!("`<{name}>` stays open"));
        unclosed.map_or(Ok(names), Err)
    }

    #[test]
    fn the_checker_finds_what_is_wrong() {
        let wrongs = "<a><b></a></b>;<a>;<a b=\"c></a>;<a>x & y</a>;<a b></a>;<a>\u{1}</a>;<a";
        for wrong in wrongs.split(';') {
            assert!(elements(wrong).is_err(), "{wrong}");
        }
        assert_eq!(elements("<a b=\"c\">x &amp; y<d/></a>"), Ok(vec!["a", "d"]));
    }

    #[test]
    fn every_size_has_its_cells_on_the_card() {
        let sizes =
            [0, 1, 5, 30, 80, 126].map(|layers| [1, 3, 32, 128].map(|heads| (layers, heads)));
        for (layers, heads) in sizes.into_iter().flatten() {
            let column = |layer| (0..heads).map(|head| layer + head).collect();
            let kept: Vec<Vec<usize>> = (0..layers).map(column).collect();
            let picture = svg(&kept, 200, "a title", &["a note".into()]);
            let view: Vec<&str> = picture.split(&['"', ' ']).skip(7).take(2).collect();
            let size = |at: usize| view[at].parse::<usize>().expect("a size");
            let mut corners = BTreeSet::new();
            for cell in picture.lines().filter(|line| line.contains("<title>")) {
                let values: Vec<&str> = cell.split('"').collect();
                let value = |at: usize| values[at].parse::<usize>().expect("a number");
                let (x, y, side) = (value(1), value(3), value(5));
                assert!(x + side < size(0) && y + side < size(1), "{cell}");
                assert!(side < Grid::new(&kept).side, "cells touch: {cell}");
                assert!(corners.insert((x, y)), "two cells in one place: {cell}");
            }
            let names = elements(&picture).expect("well-formed");
            let titles = names.iter().filter(|name| **name == "title").count();
            assert_eq!((titles, corners.len()), (layers * heads, layers * heads));
        }
    }

    #[test]
    fn cells_say_and_show_what_was_kept() {
        let kept = [vec![0, 1000], vec![250], vec![], vec![5000]];
        let picture = svg(&kept, 1000, "ragged", &[]);
        for (tip, shade) in [
            ("layer 0, head 0: 0 of 1000 tokens", "#fcf8e0"),
            ("layer 0, head 1: 1000 of 1000 tokens", "#2c0a5c"),
            ("layer 1, head 0: 250 of 1000 tokens", "#4ea7a7"),
            ("layer 3, head 0: 5000 of 1000 tokens", "#2c0a5c"),
        ] {
            let cell = format!("fill=\"{shade}\"><title>{tip}</title></rect>");
            assert!(picture.contains(&cell), "{cell} in {picture}");
        }
        assert_eq!(picture.matches("<title>").count(), 4);
        assert_eq!(picture, svg(&kept, 1000, "ragged", &[]));
        assert_ne!(picture, svg(&kept[..3], 1000, "ragged", &[]));
        assert!(svg(&[vec![0]], 0, "no tokens", &[]).contains("0 of 1 tokens"));
    }

    /// Whoever cannot tell hues can tell light from dark.
    #[test]
    fn more_tokens_are_darker() {
        let light = |part| {
            let shade = usize::from_str_radix(&colour(part, 64)[1..], 16).expect("digits");
            2126 * (shade >> 16) + 7152 * (shade >> 8 & 255) + 722 * (shade & 255)
        };
        assert!((0..64).all(|part| light(part) > light(part + 1)));
    }

    #[test]
    fn texts_are_escaped_and_broken() {
        let title = "a<b> & \"c\" 'd'\u{0}\n e".repeat(20);
        let picture = svg(&[vec![1]], 2, &title, &[title.clone(), "x".repeat(500)]);
        assert!(elements(&picture).expect("well-formed").len() > 150);
        let first = "a&lt;b&gt; &amp; &quot;c&quot; 'd'\u{fffd}";
        assert!(picture.contains(first), "{picture}");
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefg h", 3), ["abc", "def", "g h"]);
    }

    #[test]
    fn numbers_from_0_to_1_are_shaded_and_said() {
        let values = [vec![0.0, 0.25], vec![1.0, 7.0]];
        let picture = heads_picture(&values, ("how much", "query head"), "a title", &[]);
        elements(&picture).expect("well-formed");
        for (tip, shade) in [
            ("layer 0, head 0: 0.000", "#fcf8e0"),
            ("layer 0, head 1: 0.250", "#4ea7a7"),
            ("layer 1, head 1: 1.000", "#2c0a5c"),
        ] {
            let cell = format!("fill=\"{shade}\"><title>{tip}</title></rect>");
            assert!(picture.contains(&cell), "{cell} in {picture}");
        }
        for text in [">how much<", ">query head<", ">0.75<", ">1<"] {
            assert!(picture.contains(text), "{text} in {picture}");
        }
    }

    #[test]
    fn numbers_of_an_axis_do_not_touch() {
        for (count, side) in (1..140).flat_map(|count| (9..45).map(move |side| (count, side))) {
            let ticks = ticks(count, side, 20);
            assert!(
                ticks[0] == 0 && ticks.is_sorted_by(|a, b| (b - a) * side >= 20),
                "{ticks:?}"
            );
            assert!(
                ticks.len() * 5 * side.max(20) / 2 >= (count - 1) * side,
                "too few: {ticks:?}"
            );
        }
        assert_eq!(ticks(80, 10, 20), (0..80).step_by(2).collect::<Vec<_>>());
        assert_eq!(ticks(12, 9, 20), [0, 5, 10]);
        assert_eq!(ticks(9, 9, 20), [0, 5, 8]);
    }
}
