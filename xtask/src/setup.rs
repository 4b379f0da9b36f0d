//! Set-up: the patched engine, then the model. Doing it twice does nothing the second time.

use anyhow::Result;

use crate::{
    engine,
    model::{self, Choice, DtypeArg, Models},
    workspace::Workspace,
};

/// Makes the checkout ready to build and run; returns the models that are ready.
pub(crate) fn run(workspace: &Workspace, dtype: DtypeArg, choice: &Choice) -> Result<Models> {
    let _lock = workspace.lock()?;
    engine::set_up(workspace)?;
    model::ensure(workspace, dtype, choice)
}
