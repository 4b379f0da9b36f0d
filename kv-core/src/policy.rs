//! What a method must say, and nothing else.
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Budget, ConfigError, Geometry, KeepPlan, LayerView, Reads, Registry, Room, Sight};

/// Chooses which tokens the heads of a layer keep.
///
/// A policy is a pure function of its configuration and the view: it owns no tensor, holds no lock and keeps no state
/// between calls. What has to last between calls belongs to the slot, and the host carries it.
pub trait Policy: fmt::Debug + Send + Sync {
    /// What the host must observe, and when to ask.
    fn needs(&self) -> Needs;

    /// The most that the heads of a layer will hold, for a prompt of `prompt` tokens and a budget of `budget` tokens per
    /// KV head (`usize::MAX` for none). Sequences are admitted by it. Without a body: the budget in every head.
    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        let _ = (layer, prompt);
        Room::Each(budget)
    }

    /// The most that the heads of all layers hold together, where that is less than their rooms: for a method that shares one
    /// budget out among the layers as they report. Sequences are admitted by it. Without a body: what the rooms come to.
    fn together(&self, prompt: usize, budget: usize) -> Option<usize> {
        let _ = (prompt, budget);
        None
    }

    /// What a layer says of its prompt to the plans of the others, under [`Cadence::Cascade`]: read it as
    /// [`LayerView::reports`]. Without a body: nothing, 0.
    fn report(&self, view: &LayerView<'_>) -> f64 {
        let _ = view;
        0.0
    }

    /// What the prompt's queries see in one KV head, where the method reads the prompt itself by sinks and recent tokens: a host
    /// that attends itself does no more work than that, and one that cannot refuses the policy. Without a body: everything.
    fn sight(&self, layer: usize, head: usize) -> Sight {
        let _ = (layer, head);
        Sight::Causal
    }

    /// What a user should know before trusting the results, for example that a profile was not made for the model.
    fn notice(&self) -> Option<String> {
        None
    }

    /// Why its answers can no longer be trusted: a policy that runs outside the host's program may have died. A host fails the
    /// request; a method over another one hands on what that says. Without a body: it runs inside.
    fn failure(&self) -> Option<String> {
        None
    }

    /// What the method ranks a prompt's tokens by, for methods over this one ([`Over`](crate::Over)). Without a body: it does
    /// not rank.
    fn scorer(&self) -> Option<&dyn Scorer> {
        None
    }

    /// Says what stays of one layer of one sequence. `keep` starts as "everything" and can only be narrowed.
    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan);
}

/// Ranks the tokens of a prompt: the part of a policy that methods over it use.
pub trait Scorer: fmt::Debug + Send + Sync {
    /// A score for every token of the prompt in every head, `[H][n]`, higher keeps; positive infinity for a token that the
    /// method never drops. Reads of the view what the policy's [`Needs`] name; it is not called where they name nothing.
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>>;
}

/// A policy's configuration, as a user writes it. Derive the serde traits with `#[serde(deny_unknown_fields, default)]`, and
/// [`JsonSchema`] with `#[schemars(crate = "kv_core::schemars")]`.
///
/// What users read is made from the type, see [`Description`](crate::Description): a field's doc comment should say what it
/// is, its unit and what is allowed. A range is stated as `#[schemars(range(min = 1))]`, and what a text is as
/// `#[schemars(extend("format" = "path"))]`.
pub trait PolicyConfig: Default + Serialize + DeserializeOwned + JsonSchema {
    /// The name users write, in kebab case: also the crate's folder, the cargo feature and the docs page.
    const NAME: &'static str;
    /// One sentence for `mistralrs-kv policies`.
    const SUMMARY: &'static str;
    /// What this builds.
    type Policy: Policy + 'static;

    /// Checks the configuration against a model and a budget, and builds the policy.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`], which names the field, its value and what is allowed.
    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Self::Policy, ConfigError>;

    /// As [`PolicyConfig::bind`], for a method over another that the configuration names: [`Over`](crate::Over) finds it in
    /// `registry`.
    ///
    /// # Errors
    ///
    /// As [`PolicyConfig::bind`], and those of the other method.
    fn bind_in(
        self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Self::Policy, ConfigError> {
        let _ = registry;
        self.bind(geometry, budget)
    }
}

/// What a policy asks of its host. An observation that is not named here costs nothing, and reading it is a panic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    /// What to observe.
    pub observation: Observation,
    /// How observed attention is brought to one number per slot.
    pub reduction: Reduction,
    /// What of the prompt the plan reads itself.
    pub reads: Reads,
    /// Whether what is generated comes on top of [`Policy::room`]: the method chooses among the prompt's tokens and keeps
    /// all that follow.
    pub appends: bool,
    /// When to ask for a plan.
    pub cadence: Cadence,
    /// At which positions attention sees the cached keys.
    pub positions: Positions,
    /// Fewest tokens per head with which the method makes sense; a budget that comes out smaller is raised to it.
    pub min_tokens: usize,
}

impl Needs {
    /// Positions only, bounded for good, asked once after a layer's prompt.
    pub const NONE: Self = Self {
        observation: Observation::None,
        reduction: Reduction::MEAN,
        reads: Reads::NONE,
        appends: false,
        cadence: Cadence::LayerPrefill,
        positions: Positions::Original,
        min_tokens: 1,
    };

    /// Whether what stays of a text depends on what its queries looked for, and so on the question at its end. What a method keeps by
    /// positions, keys or values alone serves any question behind it; what it keeps by attention serves the conversation that it was kept
    /// for, and may have dropped what another question asks about.
    #[must_use]
    pub const fn depends_on_queries(&self) -> bool {
        let looks_at_attention =
            !matches!(self.observation, Observation::None | Observation::KeyNorms);
        looks_at_attention || self.reads.queries
    }

    /// When a prompt that is read in chunks can be compressed.
    #[must_use]
    pub const fn chunks(&self) -> Chunks {
        if matches!(self.cadence, Cadence::Cascade) {
            return Chunks::Never("its layers share one budget out when all of the prompt is read");
        }
        if self.reads.queries {
            return Chunks::Never("it reads the queries of the whole prompt");
        }
        if self.reads.classes {
            return Chunks::Never("it reads what kind of text the whole prompt is");
        }
        match self.observation {
            Observation::None | Observation::KeyNorms => Chunks::Each,
            Observation::Window { queries } => Chunks::Last { tokens: queries },
            Observation::Latest => Chunks::Last { tokens: 1 },
            Observation::Accumulated | Observation::Rows => {
                Chunks::Never("it adds up the attention of all queries of the prompt")
            }
        }
    }
}

/// When a prompt that is read in chunks can be compressed, by what a policy needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunks {
    /// After each: what earlier chunks left and the chunk just read are planned together, as if they were the prompt
    /// ([`LayerView::with_positions`]). The next chunk attends to what stays.
    Each,
    /// After the last, of at least so many tokens, for their queries are observed: all is held until then.
    Last {
        /// Tokens of the last chunk.
        tokens: usize,
    },
    /// The prompt has to be read at once, and why.
    Never(&'static str),
}

/// What the host must measure. Scores are `[H, T]`, `f32`, "higher keeps".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Observation {
    /// Nothing: positions are enough.
    None,
    /// Attention of the last `queries` prompt queries to the tokens before them. The window's own tokens take their share
    /// of each softmax, are left out of the pool, and score positive infinity.
    Window {
        /// How many queries.
        queries: usize,
    },
    /// Attention accumulated over all prompt queries.
    Accumulated,
    /// The attention row of every decode step, added to the slots, after [`Observation::Accumulated`] on the prompt.
    Rows,
    /// The attention row of the newest query, in place of the one before: of the prompt's last query, where the newest token
    /// scores positive infinity, then of every decode step.
    Latest,
    /// Euclidean norms of the keys, negated: a long key scores low.
    KeyNorms,
}

impl Observation {
    /// What of it is seen when the prompt has been read; for a method that ranks the prompt alone by another's score.
    #[must_use]
    pub const fn of_the_prompt(self) -> Self {
        match self {
            Self::Rows => Self::Accumulated,
            Self::Latest => Self::Window { queries: 1 },
            other => other,
        }
    }

    /// Whether decode steps go on observing, so that scores change while the heads grow.
    #[must_use]
    pub const fn watches_decode(self) -> bool {
        matches!(self, Self::Rows | Self::Latest)
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no observation"),
            Self::Window { queries } => {
                write!(f, "the attention of the last {queries} prompt queries")
            }
            Self::Accumulated => f.write_str("the attention accumulated over the prompt"),
            Self::Rows => f.write_str("the attention row of every decode step"),
            Self::Latest => f.write_str("the attention row of the newest query"),
            Self::KeyNorms => f.write_str("key norms"),
        }
    }
}

/// From attention of every query head and query to one number per slot: over queries, then over the group, then pooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduction {
    /// Over the queries that can see the token: [`Reduce::Mean`] divides by their number, which for
    /// [`Observation::Accumulated`] differs from token to token.
    pub queries: Reduce,
    /// Over the `G` query heads of a KV head.
    pub group: Reduce,
    /// Along the text.
    pub pool: Pool,
    /// Whether the group or the pool comes first.
    pub order: ReductionOrder,
    /// Whether the heads of a layer share one score, the mean over them, and so one choice of tokens.
    pub shared: bool,
}

impl Reduction {
    /// Means, no pooling.
    pub const MEAN: Self = Self {
        queries: Reduce::Mean,
        group: Reduce::Mean,
        pool: Pool::None,
        order: ReductionOrder::GroupThenPool,
        shared: false,
    };
}

/// What comes first once the queries are reduced. It shows wherever one of the two is a maximum and the other is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReductionOrder {
    /// The group, then the pool: Ada-KV's authors, `KVCache-Factory`, and everything here by default.
    #[default]
    GroupThenPool,
    /// The pool of every query head, then the group: kvpress.
    PoolThenGroup,
}

/// How several numbers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The largest.
    Max,
}

/// One-dimensional pooling along the text, stride 1, zero padding, odd width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// None.
    None,
    /// Mean of this many neighbours.
    Average(usize),
    /// Largest of this many neighbours.
    Max(usize),
}

/// When a policy is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cadence {
    /// Once per layer, when its prompt attention is done.
    LayerPrefill,
    /// So, and once more for every layer before it: each layer reports ([`Policy::report`]), and what the layers before it
    /// hold is planned anew, with all reports so far. They are cut down before the layer's own prompt is written. A plan
    /// can ask for more than a layer still holds; it gets what is there.
    Cascade,
    /// Once per layer, when its prompt attention is done, and again whenever the next token would take a head beyond
    /// its room. That plan has to make place for it.
    Full,
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LayerPrefill => f.write_str("a plan after each layer's prompt"),
            Self::Cascade => f.write_str("plans of all layers again as later ones report"),
            Self::Full => f.write_str("a plan whenever a head is full"),
        }
    }
}

/// At which positions attention sees the cached keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// Where they stood in the text.
    #[default]
    Original,
    /// Where they stand in the cache, as in the `StreamingLLM` paper.
    CacheRelative,
}
