//! The tasks of the daemon. None of them may end while the daemon runs: the end of one is the end of all.

use std::collections::HashMap;

use anyhow::{Context, anyhow};
use tokio::task::{Id, JoinSet};

/// A set of named tasks. Dropping it ends them all.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task.
    pub(super) fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error>,
    {
        let handle = self.set.spawn(async { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name);
    }

    /// Waits for a task to end, which is an error whatever it says. Never returns while all run; cancel safe.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.next().await {
            None => std::future::pending().await,
            Some((name, Ok(()))) => anyhow!("task {name} ended by itself"),
            Some((name, Err(error))) => error.context(format!("task {name} failed")),
        }
    }

    /// Waits for one task that was told to end, while the others keep running. An end of another one is logged.
    pub(super) async fn finish(&mut self, name: &'static str) {
        while self.names.values().any(|n| *n == name) {
            let Some((ended, result)) = self.next().await else { return };
            if let Err(error) = result {
                tracing::warn!(task = ended, "{error:#}");
            }
        }
    }

    async fn next(&mut self) -> Option<(&'static str, anyhow::Result<()>)> {
        let (id, result) = match self.set.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error).context("it did not come to an end")),
        };
        Some((self.names.remove(&id).unwrap_or("without a name"), result))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn end_of_a_task_is_an_error_with_its_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("lives", std::future::pending::<Result<(), Infallible>>());
        tasks.spawn("ends", async { Ok::<(), Infallible>(()) });
        assert_eq!(tasks.ended().await.to_string(), "task ends ended by itself");
        tasks.spawn("panics", async { panic!("a fault") as Result<(), Infallible> });
        assert_eq!(tasks.ended().await.to_string(), "task panics failed");
    }

    #[tokio::test]
    async fn one_task_is_awaited_while_others_run() {
        let mut tasks = Tasks::default();
        tasks.spawn("lives", std::future::pending::<Result<(), Infallible>>());
        tasks.spawn("speaker", async { Ok::<(), Infallible>(()) });
        tasks.finish("speaker").await;
        tasks.finish("never was").await;
    }
}
