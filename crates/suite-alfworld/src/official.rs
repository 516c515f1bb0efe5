//! AgentBench's task lists: object type → paths of games.

use rolegraft_suite::Task;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Component, Path, PathBuf};

/// Why official data cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages are the documentation")]
pub enum OfficialError {
    #[error(
        "`{}` holds no ALFWorld tasks: --data must hold `alfworld/standard.json` or `alfworld/tasks/standard.json` (AgentBench's \
         data/alfworld) with the games it names (`json_2.1.1/…`, from json_2.1.1_tw-pddl.zip of ALFWorld's release 0.2.2)",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error("`{}`: {reason}", path.display())]
    Format { path: PathBuf, reason: String },
    #[error(
        "`{}` names the game `{game}`, which is missing; unpack json_2.1.1_tw-pddl.zip (ALFWorld's release 0.2.2) beside it",
        path.display()
    )]
    NoGame { path: PathBuf, game: String },
}

/// Folders that games' paths may start from.
fn roots(data: &Path) -> [PathBuf; 3] {
    ["data/alfworld", "alfworld", ""].map(|folder| data.join(folder))
}

/// Where the tasks and the games lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Official {
    root: PathBuf,
    lists: PathBuf,
}

impl Official {
    /// Finds the task lists.
    ///
    /// # Errors
    /// If there are none.
    pub fn open(data: &Path) -> Result<Self, OfficialError> {
        let lists = roots(data)
            .into_iter()
            .flat_map(|root| [root.join("tasks"), root.clone()].map(|lists| (root.clone(), lists)));
        let found = lists.into_iter().find(|(_, lists)| lists.join("standard.json").is_file());
        found.map(|(root, lists)| Self { root, lists }).ok_or_else(|| OfficialError::Missing { path: data.to_owned() })
    }

    /// The folder that a game's path starts from, whether or not there are lists of tasks.
    pub(crate) fn root_of(data: &Path, game: &str) -> Option<PathBuf> {
        roots(data).into_iter().find(|root| root.join(game).is_file())
    }

    /// The folder that games' paths start from.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tasks of a list (`standard`, `dev`, `new_std`) in upstream's order, and the digest of the list and its games.
    ///
    /// # Errors
    /// If the list or a game is missing or wrong.
    pub fn tasks(&self, list: &str) -> Result<(Vec<Task>, String), OfficialError> {
        let path = self.lists.join(format!("{list}.json"));
        let wrong = |reason: String| OfficialError::Format { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let kinds = json.as_object().ok_or_else(|| wrong("not an object of lists".into()))?;
        let mut digest = Sha256::new();
        let mut tasks = Vec::new();
        for game in kinds.values().flat_map(|games| games.as_array().into_iter().flatten()) {
            let game = game.as_str().ok_or_else(|| wrong("a game's path is no text".into()))?;
            if Path::new(game).components().any(|c| !matches!(c, Component::Normal(_))) {
                return Err(wrong(format!("the game `{game}` lies outside the data")));
            }
            let bytes = std::fs::read(self.root.join(game))
                .map_err(|_| OfficialError::NoGame { path: path.clone(), game: game.to_owned() })?;
            digest.update(game);
            digest.update(bytes);
            tasks.push(Task { id: format!("{list}-{:03}", tasks.len()), fields: json!({"game": game}) });
        }
        Ok((tasks, format!("{:x}", digest.finalize())))
    }
}
