//! `rolegraft doctor`: what works here, and which package would mend what does not.

use crate::talk::say;
use anyhow::Result;
use clap::Args;
use rolegraft_pipeline::{Apps, BoxUser, OfficialOffice, Program};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Doctor {
    /// Folder of the suites' folders.
    #[arg(long, default_value = "benchmarks")]
    suites: PathBuf,
    /// Say which of the official tasks in this folder need a program.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    data: Option<PathBuf>,
    /// The root folder of AgentBench's boxes.
    #[arg(long, env = "ROLEGRAFT_OS_ROOT")]
    os_root: Option<PathBuf>,
    /// A Docker image for AgentBench's boxes; `{}` stands for `default`.
    #[arg(long, env = "ROLEGRAFT_OS_DOCKER")]
    os_docker: Option<String>,
}

/// How many official OfficeBench tasks need a program: `3 of 51 tasks of officebench-2-apps, …`.
fn office_needs(data: Option<&Path>, program: Program) -> String {
    let sets = [Apps::Two, Apps::Three, Apps::One].into_iter().filter_map(|set| {
        let official = OfficialOffice::open(data?, set).ok()?;
        let (tasks, _) = official.tasks().ok()?;
        let needing = tasks.iter().filter(|task| official.needs(task).contains(&program)).count();
        Some(format!("{needing} of {} tasks of {}", tasks.len(), set.suite()))
    });
    let sets: Vec<String> = sets.collect();
    if sets.is_empty() { "some OfficeBench tasks; --data counts them".into() } else { sets.join(", ") }
}

impl Doctor {
    pub(crate) fn execute(&self) -> Result<ExitCode> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut missing = 0;
        let mut line = |fine: bool, needed: bool, what: &str, otherwise: &str| {
            missing += usize::from(!fine && needed);
            let mark = if fine {
                "ok     "
            } else if needed {
                "MISSING"
            } else {
                "absent "
            };
            say(&format!("{mark} {what}{}", if fine { String::new() } else { format!(": {otherwise}") }));
        };
        line(true, true, &format!("{cores} processors"), "");
        let sandbox = rolegraft_pipeline::sandbox_works();
        line(
            sandbox.is_ok(),
            true,
            "sandbox for model-written shell (suite os)",
            sandbox.as_ref().err().map_or("", String::as_str),
        );
        let suites = ["tau-retail", "tau-airline", "officebench", "os", "webshop", "dbbench", "alfworld"];
        for suite in suites {
            let path = self.suites.join(suite).join("suite.toml");
            line(
                path.exists(),
                true,
                &format!("suite {suite}"),
                &format!("`{}` not found; run from the project's root or give --suites", path.display()),
            );
        }
        let pool = self.suites.join("nano-pool/base");
        line(pool.exists(), true, "nano pool", &format!("`{}` not found; run `rolegraft nano build`", pool.display()));
        line(Path::new("/dev/nvidia0").exists(), false, "NVIDIA GPU", "everything runs on the CPU");
        let image = self.os_docker.clone().unwrap_or_else(|| "local-os/{}".to_owned()).replace("{}", "default");
        let docker = rolegraft_pipeline::has_image(&image).map_err(|e| e.to_string());
        let otherwise =
            format!("{}; not needed, bubblewrap is the sandbox", docker.as_ref().err().map_or("", String::as_str));
        line(docker.is_ok(), false, &format!("Docker with the image {image}, for AgentBench's boxes"), &otherwise);
        for program in Program::ALL {
            line(
                program.installed(),
                false,
                &format!("{}, for {}", program.command(), office_needs(self.data.as_deref(), program)),
                &format!("these are not run; install {}", program.packages()),
            );
        }
        say("        no OfficeBench task of the paper's variant needs OCR or a language model for its `llm` app");
        line(
            rolegraft_pipeline::private_database_works(),
            false,
            "MariaDB, for a private server (suite dbbench)",
            "install mariadb-server-core, or name a server with --db",
        );
        line(
            self.os_root.as_ref().is_some_and(|root| root.join("bin/bash").exists()),
            false,
            "root folder for AgentBench's boxes (suite os on official tasks)",
            "name one with --os-root; docs/agentbench.md says how to make it",
        );
        say(match BoxUser::best() {
            BoxUser::Root => {
                "        boxes can have the machine's root, bounded by control groups: tasks with several users work"
            }
            BoxUser::Namespace => {
                "        boxes have root of a user namespace only: official tasks with several users fail (as root, with control \
                 groups, they would not)"
            }
        });
        Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) })
    }
}
