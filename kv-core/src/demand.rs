//! How much a sequence may come to hold, for admission.
use crate::{Budget, Chunks, Geometry, Needs, Pins, Policy};

/// The most tokens that the heads of one layer hold, `usize::MAX` for no limit. Pins come on top.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Room {
    /// Every head so many: the heads hold equally many tokens and grow alike.
    Each(usize),
    /// Head `h` so many, `[H]`.
    Heads(Vec<usize>),
    /// All heads together so many, split as the scores say.
    Together(usize),
}

impl Room {
    /// Tokens of all `heads` heads together, `usize::MAX` if any has no limit.
    #[must_use]
    pub fn total(&self, heads: usize) -> usize {
        match self {
            Self::Each(tokens) => tokens.saturating_mul(heads),
            Self::Heads(tokens) => tokens.iter().fold(0, |sum, &t| sum.saturating_add(t)),
            Self::Together(tokens) => *tokens,
        }
    }

    /// Whether a head keeps all that comes.
    pub(crate) fn is_unbounded(&self, head: usize) -> bool {
        match self {
            Self::Each(tokens) | Self::Together(tokens) => *tokens == usize::MAX,
            Self::Heads(tokens) => tokens.get(head) == Some(&usize::MAX),
        }
    }

    /// Whether a layer whose heads hold `lens` tokens is within it.
    ///
    /// # Panics
    ///
    /// If it is made for another number of heads.
    #[must_use]
    pub fn holds(&self, lens: &[usize]) -> bool {
        self.holds_each(lens.iter().copied())
    }

    /// As [`Room::holds`].
    pub(crate) fn holds_each(&self, mut lens: impl ExactSizeIterator<Item = usize>) -> bool {
        match self {
            Self::Each(tokens) => lens.all(|len| len <= *tokens),
            Self::Heads(tokens) => {
                assert_eq!(tokens.len(), lens.len(), "one limit for each head");
                lens.zip(tokens).all(|(len, tokens)| len <= *tokens)
            }
            Self::Together(tokens) => lens.sum::<usize>() <= *tokens,
        }
    }

    /// The same with `more` tokens in every head.
    #[must_use]
    pub fn plus(&self, more: usize, heads: usize) -> Self {
        match self {
            Self::Each(tokens) => Self::Each(tokens.saturating_add(more)),
            Self::Heads(tokens) => {
                Self::Heads(tokens.iter().map(|t| t.saturating_add(more)).collect())
            }
            Self::Together(tokens) => {
                Self::Together(tokens.saturating_add(more.saturating_mul(heads)))
            }
        }
    }
}

/// Tokens per KV head that a policy is given for a prompt of `prompt` tokens under a budget: what the budget says, raised
/// to [`Needs::min_tokens`], and for bytes lowered until the pages of the policy's rooms fit. `usize::MAX` for no limit.
#[must_use]
pub fn granted(
    policy: &(impl Policy + ?Sized),
    needs: &Needs,
    geometry: &Geometry,
    budget: Budget,
    prompt: usize,
) -> usize {
    let most = budget.tokens(geometry, prompt).max(needs.min_tokens);
    let Budget::Bytes(bytes) = budget else {
        return most;
    };
    let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / geometry.page_bytes();
    let fits = |tokens| {
        Demand::new(policy, needs, geometry, prompt, tokens).pages(geometry, prompt, 0) <= pages
    };
    if fits(most) {
        return most;
    }
    // The most that fits; more tokens never need fewer pages.
    let (mut low, mut high) = (needs.min_tokens, most);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// What one sequence may hold: the policy's [`Room`] in every layer for this prompt and budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Room of each layer, `[L]`.
    pub rooms: Vec<Room>,
    /// The most that all layers hold together, as [`Policy::together`] says; pins come on top here too.
    pub together: Option<usize>,
    /// Whether what is generated comes on top, as [`Needs::appends`] says.
    pub appends: bool,
    /// Tokens of the prompt.
    pub prompt: usize,
}

impl Demand {
    /// The demand of a policy for a prompt of `prompt` tokens, under a budget of so many tokens per KV head.
    #[must_use]
    pub fn new(
        policy: &(impl Policy + ?Sized),
        needs: &Needs,
        geometry: &Geometry,
        prompt: usize,
        budget: usize,
    ) -> Self {
        let rooms = (0..geometry.layers).map(|layer| policy.room(layer, prompt, budget));
        Self {
            rooms: rooms.collect(),
            together: policy.together(prompt, budget),
            appends: needs.appends,
            prompt,
        }
    }

    /// Of a sequence of `tokens` tokens, how many pinned ones to reckon with: for a bounded cache, all that may ever come.
    #[must_use]
    pub fn pinned(&self, geometry: &Geometry, tokens: usize, pins: &Pins) -> usize {
        let last = if self.appends {
            tokens
        } else {
            tokens.max(geometry.max_positions)
        };
        pins.count_below(last)
    }

    /// As [`Demand::pages`], with the pins to reckon with.
    pub(crate) fn pages_with(&self, geometry: &Geometry, tokens: usize, pins: &Pins) -> usize {
        self.pages(geometry, tokens, self.pinned(geometry, tokens, pins))
    }

    /// Pages that such a sequence needs while its prompt is read in chunks of `chunk` tokens, and after that: where each is compressed, room
    /// for one chunk in one layer besides; where the last one is waited for, in every layer what the whole text takes.
    #[must_use]
    pub fn pages_in_chunks(
        &self,
        geometry: &Geometry,
        (tokens, pinned): (usize, usize),
        (chunks, chunk): (Chunks, usize),
    ) -> usize {
        match chunks {
            Chunks::Never(_) => self.pages(geometry, tokens, pinned),
            Chunks::Each => {
                let beside = geometry.kv_heads * geometry.head_pages(chunk);
                self.pages(geometry, tokens, pinned) + beside
            }
            Chunks::Last { .. } => {
                let whole = geometry.kv_heads * geometry.head_pages(tokens);
                let layer = |room: &Room| Self {
                    rooms: vec![room.clone()],
                    together: None,
                    ..*self
                };
                let layers = self.rooms.iter().map(layer);
                layers
                    .map(|layer| layer.pages(geometry, tokens, pinned).max(whole))
                    .sum()
            }
        }
    }

    /// Pages that a sequence of `tokens` tokens, `pinned` of them pinned, needs now and for as long as its heads stay
    /// within their room: a bounded cache is promised its bound at once, so that it never has to be preempted; an
    /// unbounded one, and what is generated where it comes on top, is promised what the length needs.
    #[must_use]
    pub fn pages(&self, geometry: &Geometry, tokens: usize, pinned: usize) -> usize {
        let heads = geometry.kv_heads;
        let longest = if self.appends {
            tokens
        } else {
            tokens.max(geometry.max_positions)
        };
        let generated = if self.appends {
            tokens.saturating_sub(self.prompt)
        } else {
            0
        };
        let head = |room: usize| match room {
            usize::MAX => tokens,
            room => room
                .saturating_add(pinned)
                .saturating_add(generated)
                .min(longest),
        };
        let layer = |room: &Room| match room {
            Room::Each(room) => heads * geometry.head_pages(head(*room)),
            Room::Heads(rooms) => rooms
                .iter()
                .map(|&room| geometry.head_pages(head(room)))
                .sum(),
            Room::Together(usize::MAX) => heads * geometry.head_pages(tokens),
            Room::Together(room) => {
                let on_top = pinned.saturating_add(generated);
                worst_split(*room, heads, on_top, longest, geometry.block)
            }
        };
        let rooms = self.rooms.iter().map(layer).sum();
        let Some(together) = self.together.filter(|&tokens| tokens < usize::MAX) else {
            return rooms;
        };
        let on_top = pinned.saturating_add(generated);
        worst_split(together, geometry.heads(), on_top, longest, geometry.block).min(rooms)
    }
}

/// The most pages that `heads` heads take which share `room` tokens and hold `on_top` more each, at most `longest`: a page
/// begun in every head, then one for each `block` tokens.
fn worst_split(room: usize, heads: usize, on_top: usize, longest: usize, block: usize) -> usize {
    let all = room
        .saturating_add(heads.saturating_mul(on_top))
        .min(heads.saturating_mul(longest));
    all.min(heads) + all.saturating_sub(heads) / block
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        layers: 2,
        kv_heads: 2,
        group: 1,
        head_dim: 8,
        block: 8,
        element_bytes: 4,
        max_positions: 64,
    };

    fn demand(room: &Room, appends: bool, prompt: usize) -> Demand {
        let rooms = vec![room.clone(); 2];
        Demand {
            rooms,
            together: None,
            appends,
            prompt,
        }
    }

    #[test]
    fn layers_that_share_a_total_are_promised_that_and_no_more() {
        let shared = Demand {
            together: Some(40),
            ..demand(&Room::Each(30), true, 30)
        };
        // 40 tokens over four heads: a page begun in each, and 36 / 8 more.
        assert_eq!(shared.pages(&GEOMETRY, 30, 0), 4 + 4);
        // Eight generated tokens in every head, and two pinned ones.
        assert_eq!(shared.pages(&GEOMETRY, 38, 2), 4 + 76 / 8);
        // Where the rooms come to less, they count; and no limit is none.
        assert_eq!(
            demand(&Room::Each(30), true, 30).pages(&GEOMETRY, 30, 0),
            4 * 4
        );
        let loose = |together| Demand {
            together,
            ..demand(&Room::Each(8), true, 30)
        };
        for together in [Some(400), Some(usize::MAX), None] {
            assert_eq!(loose(together).pages(&GEOMETRY, 30, 0), 4);
        }
    }

    #[test]
    fn a_bounded_cache_is_promised_its_bound_at_once() {
        let bounded = demand(&Room::Each(17), false, 3);
        assert_eq!(bounded.pages(&GEOMETRY, 3, 0), 4 * 3);
        assert_eq!(bounded.pages(&GEOMETRY, 60, 8), 4 * 4);
        // No head can be longer than the text may become.
        assert_eq!(
            demand(&Room::Each(1000), false, 3).pages(&GEOMETRY, 3, 0),
            4 * 8
        );
    }

    #[test]
    fn a_prompt_in_chunks_needs_a_chunk_beside_its_budget_or_all_of_itself() {
        let appends = demand(&Room::Each(17), true, 60);
        let pages = |chunks| appends.pages_in_chunks(&GEOMETRY, (60, 0), (chunks, 20));
        assert_eq!(pages(Chunks::Never("")), 4 * 3);
        assert_eq!(pages(Chunks::Each), 4 * 3 + 2 * 3);
        assert_eq!(pages(Chunks::Last { tokens: 4 }), 4 * 8);
        // A layer whose room is larger than the prompt may grow to it.
        let bounded = demand(&Room::Each(40), false, 30);
        let last = Chunks::Last { tokens: 4 };
        assert_eq!(
            bounded.pages_in_chunks(&GEOMETRY, (30, 0), (last, 20)),
            4 * 5
        );
    }

    #[test]
    fn what_is_generated_comes_on_top_where_the_policy_says_so() {
        let appends = demand(&Room::Each(17), true, 30);
        assert_eq!(appends.pages(&GEOMETRY, 30, 0), 4 * 3);
        assert_eq!(appends.pages(&GEOMETRY, 38, 0), 4 * 4);
        // A prompt that is shorter than the room takes no more than it is long.
        assert_eq!(demand(&Room::Each(17), true, 5).pages(&GEOMETRY, 6, 0), 4);
    }

    /// Splits what all heads may hold together.
    #[derive(Debug)]
    struct Together;

    impl Policy for Together {
        fn needs(&self) -> Needs {
            Needs {
                appends: true,
                min_tokens: 3,
                ..Needs::NONE
            }
        }

        fn room(&self, _: usize, _: usize, budget: usize) -> Room {
            Room::Together(budget.saturating_mul(GEOMETRY.kv_heads))
        }

        fn plan(&self, _: &crate::LayerView<'_>, _: &mut crate::KeepPlan) {}
    }

    #[test]
    fn bytes_are_never_exceeded_by_the_pages_of_a_prompt() {
        let given = |pages: usize, prompt| {
            let bytes = Budget::Bytes((pages * GEOMETRY.page_bytes()) as u64);
            let needs = Together.needs();
            let tokens = granted(&Together, &needs, &GEOMETRY, bytes, prompt);
            let demand = Demand::new(&Together, &needs, &GEOMETRY, prompt, tokens);
            (tokens, demand.pages(&GEOMETRY, prompt, 0))
        };
        // Eight pages of 8 tokens for four heads are 16 tokens per head if the heads are alike; the worst split of 32
        // tokens over two heads takes five pages, that of 24 takes four.
        assert_eq!(given(8, 500), (12, 8));
        assert_eq!(given(9, 500).1, 8);
        assert_eq!(given(4, 500), (4, 4));
        // Never below what the method needs.
        assert_eq!(given(3, 500).0, 3);
        // A prompt that fits as a whole is not cut.
        assert_eq!(given(8, 12).0, 16);
    }

    #[test]
    fn a_budget_is_raised_to_what_the_method_needs() {
        let needs = Together.needs();
        let tokens = |budget| granted(&Together, &needs, &GEOMETRY, budget, 10);
        assert_eq!(tokens(Budget::Ratio(0.1)), 3);
        assert_eq!(tokens(Budget::Ratio(0.5)), 5);
        assert_eq!(tokens(Budget::Full), usize::MAX);
    }

    #[test]
    fn heads_differ_and_any_split_of_a_layer_fits() {
        let mixed = demand(&Room::Heads(vec![usize::MAX, 10]), false, 30);
        assert_eq!(mixed.pages(&GEOMETRY, 30, 0), 2 * (4 + 2));
        assert_eq!(mixed.pages(&GEOMETRY, 41, 0), 2 * (6 + 2));
        // 20 tokens: 1 and 19 take 1 + 3 pages, and no split takes more.
        let split = demand(&Room::Together(20), false, 30);
        assert_eq!(split.pages(&GEOMETRY, 30, 0), 2 * 4);
        let worst = (0..=20_usize).map(|a| a.div_ceil(8) + (20 - a).div_ceil(8));
        assert_eq!(worst.max(), Some(4));
    }
}
