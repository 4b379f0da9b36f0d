//! What a head should hold, worked out the slow way: every token in a list, oldest first, and no slots.
use crate::{Demand, Geometry, Growth, Position, Room, TokenClass};

/// A token that a head holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token {
    pub(super) position: Position,
    /// What stands for its bytes.
    pub(super) payload: u64,
    pub(super) score: f32,
    pub(super) pinned: bool,
    pub(super) class: TokenClass,
}

/// A head's tokens and its rule of growth.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadModel {
    tokens: Vec<Token>,
    growth: Growth,
    /// Tokens that the rule counts, when the plan was made.
    planned: usize,
}

impl HeadModel {
    pub(super) fn planned(mut tokens: Vec<Token>, growth: Growth) -> Self {
        tokens.sort_by_key(|token| token.position);
        let mut model = Self {
            tokens,
            growth,
            planned: 0,
        };
        model.planned = model.counted().count();
        model
    }

    /// The same head after a plan of what it holds: the tokens at `positions`, with these scores if there are new ones.
    pub(super) fn replanned(
        &self,
        positions: &[Position],
        scores: Option<&[f32]>,
        growth: Growth,
    ) -> Self {
        let mut tokens = Vec::with_capacity(positions.len());
        for (index, &position) in positions.iter().enumerate() {
            if let Some(&token) = self.find(position) {
                let score = scores.map_or(token.score, |scores| scores[index]);
                tokens.push(Token { score, ..token });
            }
        }
        Self::planned(tokens, growth)
    }

    pub(super) const fn growth(&self) -> Growth {
        self.growth
    }

    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(super) fn find(&self, position: Position) -> Option<&Token> {
        self.index(position).map(|index| &self.tokens[index])
    }

    pub(super) fn find_mut(&mut self, position: Position) -> Option<&mut Token> {
        self.index(position).map(|index| &mut self.tokens[index])
    }

    fn index(&self, position: Position) -> Option<usize> {
        self.tokens
            .binary_search_by_key(&position, |token| token.position)
            .ok()
    }

    /// Tokens that may have to go for others, oldest first: not pinned, behind the sinks, and not protected.
    fn counted(&self) -> impl Iterator<Item = &Token> {
        let sinks = match self.growth {
            Growth::Ring { sinks, .. } => sinks,
            _ => 0,
        };
        let protected = self.protected();
        self.tokens
            .iter()
            .skip(sinks)
            .filter(move |token| !token.pinned && !protected.contains(&token.position))
    }

    /// The first tokens of protected classes, all but one of the most that the head may hold.
    fn protected(&self) -> Vec<Position> {
        let Growth::Protect { most, .. } = self.growth else {
            return Vec::new();
        };
        let of_class = self.tokens.iter().filter(|token| self.is_of_class(token));
        of_class
            .map(|token| token.position)
            .take(most.max(1) - 1)
            .collect()
    }

    fn is_of_class(&self, token: &Token) -> bool {
        let Growth::Protect { classes, .. } = self.growth else {
            return false;
        };
        let is_named = match token.class {
            TokenClass::Plain => false,
            TokenClass::Special => classes.special,
            TokenClass::Punctuation => classes.punctuation,
        };
        is_named && !token.pinned
    }

    /// Who leaves for a newcomer.
    pub(super) fn leaver(&self, newcomer: &Token) -> Option<Position> {
        if newcomer.pinned {
            return None;
        }
        let limit = match self.growth {
            Growth::Append => return None,
            Growth::Ring { recent, .. } => recent,
            Growth::EvictLowest { limit, .. } => limit,
            Growth::Protect {
                limit,
                recent,
                most,
                ..
            } => {
                return self.leaver_of_unprotected(newcomer, (limit.max(1), recent, most.max(1)));
            }
        };
        // The newcomer is always one of those that stay, and a plan may have kept more than the rule would.
        if self.counted().count() < limit.max(self.planned).max(1) {
            return None;
        }
        let Growth::EvictLowest { limit, recent } = self.growth else {
            return self.counted().next().map(|token| token.position);
        };
        self.lowest(recent.min(limit.max(1) - 1))
    }

    /// Who leaves a head that protects classes.
    fn leaver_of_unprotected(
        &self,
        newcomer: &Token,
        (limit, recent, most): (usize, usize, usize),
    ) -> Option<Position> {
        let (others, protected) = (self.counted().count(), self.protected().len());
        let comes_on_top = self.is_of_class(newcomer) && protected + 1 < most;
        let is_full = others + protected >= most;
        if !is_full && (comes_on_top || others < limit) {
            return None;
        }
        self.lowest(recent.min(limit.min(most - protected) - 1))
    }

    /// The lowest score of those that may go, outside the newest tokens of all.
    fn lowest(&self, newest: usize) -> Option<Position> {
        let protected = newest.min(self.tokens.len());
        // Tokens stand by age, so whoever is older than the first protected one is not among the newest.
        let first_protected = self
            .tokens
            .get(self.tokens.len() - protected)
            .map(|token| token.position);
        let score = |token: &Token| {
            if token.score.is_nan() {
                f32::NEG_INFINITY
            } else {
                token.score
            }
        };
        let mut worst: Option<&Token> = None;
        for token in self.counted() {
            let is_protected = first_protected.is_some_and(|first| token.position >= first);
            // Of equal scores the later position goes, and that is the one met last.
            if !is_protected && worst.is_none_or(|worst| score(token) <= score(worst)) {
                worst = Some(token);
            }
        }
        worst.map(|token| token.position)
    }

    /// Takes a newcomer in, and says whether another token left for it.
    pub(super) fn arrive(&mut self, newcomer: Token) -> bool {
        let leaver = self.leaver(&newcomer);
        self.tokens.retain(|token| Some(token.position) != leaver);
        self.tokens.push(newcomer);
        leaver.is_some()
    }

    pub(super) fn pages(&self, block: usize) -> usize {
        pages(self.tokens.len(), block)
    }
}

/// Pages for `tokens`: the full ones, and one that is begun.
pub(super) fn pages(tokens: usize, block: usize) -> usize {
    tokens / block + usize::from(!tokens.is_multiple_of(block))
}

/// The most pages that a sequence under a demand can come to hold.
pub(super) fn demanded(
    demand: &Demand,
    geometry: &Geometry,
    tokens: usize,
    pinned: usize,
) -> usize {
    let apart = (0..geometry.layers)
        .map(|layer| demanded_of_layer(demand, layer, geometry, tokens, pinned))
        .sum();
    match demand.together {
        None | Some(usize::MAX) => apart,
        Some(total) => {
            // All heads as those of one layer that shares the total.
            let one = Geometry {
                layers: 1,
                kv_heads: geometry.heads(),
                ..*geometry
            };
            let shared = Demand {
                rooms: vec![Room::Together(total)],
                together: None,
                ..*demand
            };
            demanded_of_layer(&shared, 0, &one, tokens, pinned).min(apart)
        }
    }
}

fn demanded_of_layer(
    demand: &Demand,
    layer: usize,
    geometry: &Geometry,
    tokens: usize,
    pinned: usize,
) -> usize {
    // Tokens after the prompt that come on top, and the longest that a head may get.
    let (later, longest) = if demand.appends {
        (tokens - tokens.min(demand.prompt), tokens)
    } else {
        (0, tokens.max(geometry.max_positions))
    };
    let most = |room: usize| {
        if room == usize::MAX {
            tokens
        } else {
            longest.min(room.saturating_add(pinned).saturating_add(later))
        }
    };
    let heads = geometry.kv_heads;
    match &demand.rooms[layer] {
        Room::Each(room) => heads * pages(most(*room), geometry.block),
        Room::Heads(rooms) => rooms
            .iter()
            .fold(0, |sum, &room| sum + pages(most(room), geometry.block)),
        Room::Together(usize::MAX) => heads * pages(tokens, geometry.block),
        Room::Together(room) => {
            // The worst split gives every head one token, which begins a page; after that it takes B more tokens in one
            // head to begin another.
            let mut left = (heads * longest)
                .min(room.saturating_add(heads.saturating_mul(pinned.saturating_add(later))));
            let mut layer = 0;
            for _ in 0..heads {
                layer += left.min(1);
                left -= left.min(1);
            }
            layer + left / geometry.block
        }
    }
}
