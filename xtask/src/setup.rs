//! Set-up: the patched engine, then the model, then models for tests. Doing it twice does nothing the second time.

use anyhow::Result;

use crate::{
    engine,
    model::{self, Choice, DtypeArg, Models},
    own_policy, tiny,
    workspace::Workspace,
};

/// Makes the checkout ready to build and run; returns the models that are ready.
pub(crate) fn run(workspace: &Workspace, dtype: DtypeArg, choice: &Choice) -> Result<Models> {
    let _lock = workspace.lock()?;
    engine::set_up(workspace)?;
    own_policy::lock(workspace)?;
    model::ensure(workspace, dtype, choice)
}

/// Makes the checkout ready for every test; returns the models as [`run`] does.
pub(crate) fn for_tests(workspace: &Workspace, choice: &Choice) -> Result<Models> {
    let models = run(workspace, DtypeArg::All, choice)?;
    let _lock = workspace.lock()?;
    tiny::ensure(workspace)?;
    Ok(models)
}
