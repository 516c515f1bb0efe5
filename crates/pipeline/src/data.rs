//! Which official data is there, where it comes from, under which licence. Nothing is ever downloaded.

use crate::suites::SuiteLibrary;
use rolegraft_suite_office::Apps;
use rolegraft_suite_tau::Domain;
use rolegraft_suite_webshop::{Catalogue, Settings};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// Largest file that is read for its digest without being asked, in bytes.
const QUICK: u64 = 256 << 20;

/// A suite's official data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfficialData {
    /// The suite.
    pub suite: &'static str,
    /// Where to get it.
    pub from: &'static str,
    /// Its licence.
    pub licence: &'static str,
    /// What is there, with SHA-256 digests; or what is missing.
    pub found: Result<Vec<(String, String)>, String>,
}

const TAU: &str =
    "https://github.com/sierra-research/tau-bench (59a200c); docs/tau-bench.md says how to make the JSON files";
const OFFICE: &str =
    "https://github.com/microsoft/Simia-Agent-Training (ea77d9d), OfficeBench/tasks (docs/officebench.md)";
const AGENTBENCH: &str = "https://github.com/THUDM/AgentBench (branch v0.2)";

fn sums(sets: impl IntoIterator<Item = Result<(String, String), String>>) -> Result<Vec<(String, String)>, String> {
    sets.into_iter().collect()
}

fn file(path: &Path, whole: bool) -> Result<(String, String), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let wrong = |e: std::io::Error| format!("`{}`: {e}", path.display());
    let mut file = std::fs::File::open(path).map_err(|_| format!("`{}` is missing", path.display()))?;
    let bytes = file.metadata().map_err(wrong)?.len();
    let what = format!("{name}, {bytes} bytes");
    if bytes > QUICK && !whole {
        return Ok((what, "not computed; --digest does it".into()));
    }
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    while let n @ 1.. = file.read(&mut buffer).map_err(wrong)? {
        digest.update(&buffer[..n]);
    }
    Ok((what, digest.finalize().iter().map(|b| format!("{b:02x}")).collect()))
}

fn count(what: &str, tasks: usize, digest: String) -> (String, String) {
    (format!("{tasks} {what} tasks"), digest)
}

/// What `data` holds, suite by suite. `whole`: read large files, too, for their digests.
#[must_use]
pub fn official_data(data: &Path, whole: bool) -> Vec<OfficialData> {
    let mut out = Vec::new();
    for domain in Domain::ALL {
        let found = rolegraft_suite_tau::Official::open(data, domain).map_err(|e| e.to_string()).and_then(|official| {
            let mut sets = Vec::new();
            for set in ["test", "train", "dev"] {
                if let Some((goals, text)) = official.tasks(set).map_err(|e| e.to_string())? {
                    sets.push(count(set, goals.len(), rolegraft_checkpoint::Digest::of(text.as_bytes()).to_string()));
                }
            }
            Ok(sets)
        });
        out.push(OfficialData { suite: domain.suite(), from: TAU, licence: "MIT", found });
    }
    for apps in Apps::SCORED {
        let found =
            rolegraft_suite_office::Official::open(data, apps).map_err(|e| e.to_string()).and_then(|official| {
                let (tasks, digest) = official.tasks().map_err(|e| e.to_string())?;
                Ok(vec![count("test", tasks.len(), digest)])
            });
        out.push(OfficialData {
            suite: apps.suite(),
            from: OFFICE,
            licence: "MIT (from OfficeBench, Apache-2.0)",
            found,
        });
    }
    let os = rolegraft_suite_os::Official::open(data).map_err(|e| e.to_string()).and_then(|official| {
        sums(["test", "dev"].map(|set| {
            let (tasks, digest) = official.tasks(set).map_err(|e| e.to_string())?;
            Ok(count(set, tasks.len(), digest))
        }))
    });
    out.push(OfficialData { suite: "os", from: AGENTBENCH, licence: "Apache-2.0", found: os });
    let db = rolegraft_suite_db::folder(data)
        .map_err(|e| e.to_string())
        .and_then(|folder| sums(["standard.jsonl", "dev.jsonl"].map(|name| file(&folder.join(name), whole))));
    out.push(OfficialData { suite: "dbbench", from: AGENTBENCH, licence: "Apache-2.0", found: db });
    let shop = Settings::default();
    let folder = Catalogue::folder(data, &shop);
    let names = [&shop.products, &shop.attributes, &shop.instructions];
    out.push(OfficialData {
        suite: "webshop",
        from: "https://github.com/princeton-nlp/WebShop (Google Drive ids 1A2whVgOO0euk5O13n2iYDM0bQRkkRduB, \
               1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi, 14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O; 5.2 GB)",
        licence: "MIT; product texts are third parties'",
        found: sums(names.map(|name| file(&folder.join(name), whole))),
    });
    let games = rolegraft_suite_alfworld::Official::open(data).map_err(|e| e.to_string()).and_then(|official| {
        sums([("standard", "test"), ("dev", "dev")].map(|(list, set)| {
            let (tasks, digest) = official.tasks(list).map_err(|e| e.to_string())?;
            Ok(count(set, tasks.len(), digest))
        }))
    });
    out.push(OfficialData {
        suite: "alfworld",
        from: "lists: https://github.com/THUDM/AgentBench, data/alfworld; games: json_2.1.1_tw-pddl.zip of release 0.2.2 of \
               https://github.com/alfworld/alfworld",
        licence: "MIT (games), Apache-2.0 (lists)",
        found: games,
    });
    debug_assert!(out.iter().all(|one| SuiteLibrary::has_official(one.suite)));
    out
}
