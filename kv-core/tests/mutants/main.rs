//! The kit is tested by policies that are wrong on purpose: each must be caught by the property made for it.
//!
//! What no property can catch is listed too, in [`survivors_need_golden_plans`].

/// An enum of faults, and a type for each, so that every mutant's configuration is a type of its own.
macro_rules! faults {
    ($($name:ident)+) => {
        /// What is wrong, if anything.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($name),+
        }

        /// Names a fault in a type.
        pub(crate) trait Wrong: std::fmt::Debug + Clone + Default {
            const FAULT: Fault;
        }

        $(#[derive(Debug, Clone, Copy, Default)]
        pub(crate) struct $name;

        impl Wrong for $name {
            const FAULT: Fault = Fault::$name;
        })+
    };
}
pub(crate) use faults;

mod configs;
mod later;
mod scores;
mod window;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kv_core::{
    Budget, KeepAllConfig, PolicyConfig,
    conformance::{self, Failure, Property, Wrong},
};
use later::LaterConfig;
use scores::ScoresConfig;
use window::WindowConfig;

kv_core::conformance!(keep_all, KeepAllConfig::default; also heads_are_alike, budgets_nest);
kv_core::conformance!(right_window, [WindowConfig::<window::Nothing>::default, WindowConfig::narrow];
also heads_are_alike, budgets_nest;
refuses [
    Wrong::new("recent", r#"{"recent": 0}"#),
    Wrong::new("sinks", r#"{"sinks": 64}"#).under(Budget::Tokens(64)),
]);
kv_core::conformance!(right_scores, ScoresConfig::<scores::Nothing>::default;
also heads_are_alike, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head);
kv_core::conformance!(right_later, [LaterConfig::<later::Nothing>::default, LaterConfig::cutting];
also heads_are_alike, rooms_spend_the_budget, ties_go_to_the_lower_head);

/// Why a property does not hold of a policy: what it says, or the panic that it could not make into words.
fn killed<C: PolicyConfig>(property: Property<C>, configs: &[fn() -> C]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| property(configs))) {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure.reason().to_owned()),
        Err(_) => Some("a panic that reached the test".to_owned()),
    }
}

/// The mutant is killed by `property`, with `words` in the reason; and a policy's author reads a whole sentence.
fn kills<C: PolicyConfig>(property: Property<C>, words: &str, configs: &[fn() -> C]) {
    let reason = killed(property, configs)
        .unwrap_or_else(|| panic!("survives the property that was made for it"));
    assert!(
        reason.contains(words),
        "killed for another reason: {reason}"
    );
}

macro_rules! mutants {
    ($($mutant:ident: $config:ty, $property:ident, $words:literal;)+) => {
        $(#[test]
        fn $mutant() {
            kills(conformance::$property, $words, &[<$config>::default]);
        })+
    };
}

mutants! {
    drops_the_newest: WindowConfig<window::DropsNewest>, plan_keeps_the_newest, "drops the newest token";
    takes_slots_for_ages: WindowConfig<window::SlotsForAges>, plan_keeps_the_newest, "drops the newest token";
    window_is_one_too_long: WindowConfig<window::OneTooLong>, plan_fits_its_bound, "its bound is";
    ignores_the_budget: WindowConfig<window::IgnoresBudget>, plan_fits_its_bound, "its bound is";
    heads_are_uneven: WindowConfig<window::Uneven>, plan_is_even_unless_ragged, "heads are even";
    growth_is_uneven: WindowConfig<window::UnevenGrowth>, plan_is_even_unless_ragged, "heads are even";
    reads_what_it_did_not_ask_for: WindowConfig<window::ReadsScores>, plan_reads_only_what_it_asked_for, "Observation::None";
    asks_for_what_it_does_not_read: WindowConfig<window::AsksInVain>, plan_uses_what_it_asked_for, "never uses it";
    counts_its_calls: WindowConfig<window::Counts>, plan_is_deterministic, "two ways";
    changes_its_needs: WindowConfig<window::ChangesNeeds>, plan_is_deterministic, "needs";
    ring_is_one_too_long: WindowConfig<window::LongRing>, plan_fits_its_bound, "once its heads have grown";
    ring_is_one_too_long_in_the_ledger: WindowConfig<window::LongRing>, replay_keeps_every_byte, "its bound is";
    grows_for_ever: WindowConfig<window::Appends>, plan_fits_its_bound, "once its heads have grown";
    grows_for_ever_in_the_ledger: WindowConfig<window::Appends>, replay_keeps_every_byte, "its bound is";
    least_tokens_are_a_lie: WindowConfig<window::MinTokens>, plan_fits_its_bound, "its bound is";
    least_tokens_are_above_the_budget: WindowConfig<window::MinTokensAbove>, plan_fits_its_bound, "makes no sense below";
    drops_tokens_with_room: WindowConfig<window::DropsWithRoom>, plan_keeps_all_when_there_is_room, "with room for";
    takes_positions_for_slots: WindowConfig<window::PositionsForSlots>, plan_names_real_slots, "names slot";
    is_not_bounded: WindowConfig<window::Unbounded>, plan_fits_its_bound, "is not bounded and accepts";
    asks_for_more_than_the_budget: WindowConfig<window::AsksTooMuch>, plan_fits_its_bound, "accepts a budget of";
    gives_room_to_other_heads: WindowConfig<window::RoomForOthers>, plan_fits_its_bound, "gives 7 heads room";
    prefers_a_head: WindowConfig<window::PrefersAHead>, heads_are_alike, "by their number";
    strides: WindowConfig<window::Strides>, budgets_nest, "but not under";
    panics_on_a_short_prompt: WindowConfig<window::Underflows>, plan_reads_only_what_it_asked_for, "panics";
    overflows_in_bind: WindowConfig<window::Overflows>, config_refuses_by_name, "panics in `bind`";
    blames_no_field: WindowConfig<window::BlamesNoField>, config_refuses_by_name, "without naming a field";
    blames_another_field: WindowConfig<window::BlamesAnother>, config_refuses_by_name, "which it does not have";
    shows_another_value: WindowConfig<window::ShowsAnotherValue>, config_refuses_by_name, "but it is";
    accepts_no_budget: WindowConfig<window::AcceptsNothing>, config_refuses_by_name, "accepts none";
    name_is_no_kebab: WindowConfig<window::BadName>, config_describes_itself, "must be kebab case";

    floor_is_counted_twice: ScoresConfig<scores::FloorTwice>, plan_fits_its_bound, "its bound is";
    is_ragged_and_says_it_is_not: ScoresConfig<scores::SaysEven>, plan_is_even_unless_ragged, "heads are even";
    grows_to_an_even_limit: ScoresConfig<scores::EvenLimits>, plan_fits_its_bound, "once its heads have grown";
    grows_to_an_even_limit_in_the_ledger: ScoresConfig<scores::EvenLimits>, replay_keeps_every_byte, "its bound is";
    protects_on_top_of_its_room: ScoresConfig<scores::OnTop>, plan_fits_its_bound, "once its heads have grown";
    protects_on_top_of_its_room_in_the_ledger: ScoresConfig<scores::OnTop>, replay_keeps_every_byte, "its bound is";
    keeps_the_lowest: ScoresConfig<scores::Lowest>, keeps_the_best, "and drops position";
    of_equals_keeps_the_later: ScoresConfig<scores::LaterWins>, keeps_the_best, "and drops position";
    gives_an_equal_head_less: ScoresConfig<scores::LastHeadWins>, ties_go_to_the_lower_head, "with the same scores";
    watches_where_nothing_goes: ScoresConfig<scores::WatchesForNothing>, plan_uses_what_it_asked_for, "never uses it";
    changes_its_room: ScoresConfig<scores::ChangesRoom>, plan_is_deterministic, "two rooms";
    wastes_a_token: ScoresConfig<scores::Saves>, rooms_spend_the_budget, "of a budget of";
    spends_a_token_too_many: ScoresConfig<scores::Overspends>, rooms_spend_the_budget, "of a budget of";
    spends_more_than_a_fixed_budget: ScoresConfig<scores::Overspends>, plan_fits_its_bound, "accepts a budget of";
    leans_on_the_guard: ScoresConfig<scores::NoWindow>, plan_keeps_the_newest, "drops the newest token";

    makes_no_place: LaterConfig<later::MakesNoPlace>, plan_fits_its_bound, "with the next token";
    makes_no_place_in_the_ledger: LaterConfig<later::MakesNoPlace>, replay_keeps_every_byte, "its bound is";
    cuts_a_prompt_that_fits: LaterConfig<later::CutsAtEveryPlan>, plan_keeps_all_when_there_is_room, "with room for all";
    never_cuts_an_earlier_layer: LaterConfig<later::NeverCutsEarlier>, replay_keeps_every_byte, "in all layers";
    promises_too_little_together: LaterConfig<later::PromisesTooLittle>, replay_keeps_every_byte, "in all layers";
    reports_no_number: LaterConfig<later::ReportsNothingReal>, plan_is_deterministic, "reports NaN";
    reports_anew: LaterConfig<later::ReportsAnew>, plan_is_deterministic, "of one layer";
    reads_reports_unasked: LaterConfig<later::ReadsReports>, plan_reads_only_what_it_asked_for, "Cadence::Cascade";

    accepts_unknown_fields: configs::Lenient, config_refuses_unknown_fields, "deny_unknown_fields";
    needs_every_field: configs::Demanding, config_fills_in_defaults, "needs every field";
    has_two_defaults: configs::TwoDefaults, config_fills_in_defaults, "reads it without";
    does_not_read_a_field: configs::Deaf, config_keeps_what_is_set, "`recent` = 7";
    writes_another_value: configs::Writes, config_round_trips, "reads it as";
    does_not_explain_a_field: configs::Undocumented, config_explains_its_fields, "the field `recent` without a doc comment";
    does_not_read_a_default: configs::Choosy, config_explains_its_fields, "cannot read the default of `sinks`, 4: a sink or none";
    has_a_default_that_it_does_not_allow: configs::DefaultsOutside, config_explains_its_fields, "`sinks` is integer from 0 to 3, but its default is 4";
    refuses_what_it_says_is_allowed: configs::ClaimsZero, config_states_its_ranges, "`recent` is integer from 0, but never accepts 0";
    allows_more_than_it_says: configs::ClaimsLess, config_states_its_ranges, "`sinks` is integer from 0 to 7, but accepts 8";
}

#[test]
fn a_value_that_should_be_refused_and_is_not() {
    let wrongs = [Wrong::new("recent", r#"{"recent": 1}"#)];
    let config: fn() -> WindowConfig<window::Nothing> = WindowConfig::default;
    let failure = conformance::refuses(&[config], &wrongs).expect_err("one is a good window");
    assert!(failure.reason().contains("accepts it"), "{failure}");
    let wrongs = [Wrong::new("sinks", r#"{"recent": 0}"#)];
    let failure =
        conformance::refuses(&[config], &wrongs).expect_err("the other field is to blame");
    assert!(failure.reason().contains("does not blame"), "{failure}");
}

/// Methods that are not what they say and break no property: the kit knows no method. Only golden plans, made by the
/// method's own code, tell them from the right ones.
///
/// * `scores::Lowest`: keeps the tokens with the lowest scores. `keeps_the_best` kills it, which a policy opts into.
/// * `window::ForgetsSinks`: a window where the method has sinks too.
/// * `window::ShortRing`: a ring one shorter than the window. After a long prompt it holds what the plan kept, and after a
///   short one it wastes a token of its budget, which is no fault that a property could tell from a choice.
#[test]
fn survivors_need_golden_plans() {
    survives::<ScoresConfig<scores::Lowest>>();
    survives::<WindowConfig<window::ForgetsSinks>>();
    survives::<WindowConfig<window::ShortRing>>();

    let golden = conformance::Golden {
        budget: Budget::Tokens(12),
        layer: 0,
        prompt: 20,
        scores: &[],
        kept: &[(0..4).chain(12..20).collect()],
    };
    assert_eq!(
        golden.check(WindowConfig::<window::Nothing>::default()),
        Ok(())
    );
    let failure: Failure = golden
        .check(WindowConfig::<window::ForgetsSinks>::default())
        .expect_err("the sinks are missing");
    assert!(
        failure.reason().contains("of head 0, not [0, 1, 2, 3, 12"),
        "{failure}"
    );
    assert_eq!(held_at_last::<window::Nothing>(), 12);
    assert_eq!(held_at_last::<window::ShortRing>(), 11);
}

/// Tokens held under a budget of twelve, thirty steps after a prompt of six.
fn held_at_last<F: window::Wrong>() -> usize {
    let config = WindowConfig::<F>::default();
    let history = conformance::decode(config, 1, Budget::Tokens(12), 6, 30).expect("decodes");
    history[30][0].len()
}

fn survives<C: PolicyConfig>() {
    for (name, property) in conformance::properties::<C>() {
        assert_eq!(
            killed(property, &[C::default]),
            None,
            "{name} kills it: take it off the list"
        );
    }
}
