//! The cases, each a function over any [`Backend`].

mod backend;
mod cuda;
mod record;
mod scene;

pub(crate) mod append;
pub(crate) mod attend;
pub(crate) mod bits;
pub(crate) mod keep;
pub(crate) mod observe;
pub(crate) mod refusals;
pub(crate) mod rows;
pub(crate) mod shift;
pub(crate) mod write;

pub(crate) use backend::{Ask, Backend, Decode, NewTokens, Seen};
pub(crate) use cuda::Cuda;
pub(crate) use record::Record;
pub(crate) use scene::{Scene, slot_write};

/// One test for each case, in a module of the backend's name. `$connect` returns the backend, or `None` after it has said why it cannot
/// be had.
macro_rules! expand {
    ($name:ident, $connect:path) => {
        $crate::suite::expand!($name, $connect,);
    };
    ($name:ident, $connect:path, $($more:tt)*) => {
        mod $name {
            $crate::suite::cases! { $connect;
                write {
                    rows_lie_where_they_were_sent copies_happen_in_order
                    a_copy_onto_itself_changes_nothing
                }
                attend {
                    any_shape_follows_the_oracle great_scores_lose_only_their_own_rounding
                    layers_share_a_step heads_without_tokens_are_zeros nan_stays_in_its_head
                }
                rows { rows_follow_the_oracle_and_add_to_scores rows_may_go_to_scores_alone }
                observe {
                    windows_follow_the_oracle lengths_follow_the_oracle reductions_follow_the_oracle
                    key_norms_follow_the_oracle nothing_asked_is_nothing_seen
                }
                keep {
                    windows_and_slots best_of_a_head best_across_heads verbs_together scores_alike
                    amounts_beyond_everything
                }
                append {
                    steps_follow_the_ledger targets_are_taken_or_left
                    the_lowest_goes_wherever_it_stands_in_the_text
                }
                shift { keys_follow_the_oracle what_stays_keeps_its_bits }
                bits { the_same_call_gives_the_same_bits company_changes_no_bit }
                $($more)*
            }
        }
    };
}

/// As [`expand`], with the cases that only a device has.
macro_rules! expand_device {
    ($name:ident, $connect:path) => {
        $crate::suite::expand!($name, $connect,
            refusals {
                stores writes steps attention observations plans keys_moved what_the_device_says
            }
        );
    };
}

macro_rules! cases {
    ($connect:path; $($op:ident { $($case:ident)* })*) => {
        $(mod $op {
            $(#[test]
            fn $case() {
                if let Some(backend) = $connect() {
                    $crate::suite::$op::$case(&backend);
                }
            })*
        })*
    };
}

pub(crate) use {cases, expand, expand_device};
