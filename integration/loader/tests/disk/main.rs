//! Policies on disk: the programs are compiled by the tests, from the policies of this workspace and from bad examples.
mod cases;
mod kit;
mod prober;
mod programs;
mod reader;
mod refused;
mod same;
mod trickster;
mod wrong;
