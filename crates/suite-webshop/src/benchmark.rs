//! AgentBench WebShop as an entry of the registry.

use crate::replay::{RECORDED_PRICES, replay, reply};
use crate::{Catalogue, FORMAT, Prompts, Settings as CatalogueSettings, WebShopSuite};
use rolegraft_suite::recordings::{ReplayReply, Report, UnreadableError};
use rolegraft_suite::{
    AgentBenchProtocol, Benchmark, BuiltIn, Flag, Library, OfficialData, OpenError, Opening, Settings, SettingsError,
    SuiteFile, Taken, Task, TaskSet, agentbench_limits,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const NAME: &str = "webshop";
/// Goals of the test set: upstream's first.
const TEST: Range = Range(0, 200);

/// AgentBench WebShop.
pub struct WebShop;

/// How its official tasks are played.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// How the agent speaks.
    protocol: AgentBenchProtocol,
    /// Goals that diagnose and calibrate.
    dev: Range,
    /// The catalogue.
    catalogue: CatalogueSettings,
}

/// Numbers from the first up to, and without, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Range(usize, usize);

/// Upstream's goals for development.
impl Default for Range {
    fn default() -> Self {
        Self(200, 280)
    }
}

/// The catalogue lacks goals that are asked for.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue has {goals} goals; `{field}` asks for those from {from} to {to}")]
struct NoGoalsError {
    goals: usize,
    field: &'static str,
    from: usize,
    to: usize,
}

impl Benchmark for WebShop {
    fn name(&self) -> &'static str {
        NAME
    }
    fn kinds(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open(&self, file: &SuiteFile, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let BuiltIn { format, limits, prompt, tasks, .. } = file.read()?;
        let suite = WebShopSuite::new(AgentBenchProtocol::Text, opening.format(&format)?, limits, prompt, None);
        Ok(Library::built_in(suite, file, tasks))
    }
    fn official(&self) -> &'static [&'static str] {
        &[NAME]
    }
    fn open_official(&self, suite: &str, data: &Path, opening: &Opening<'_>) -> Result<Library, OpenError> {
        let options: Options = opening.settings.read(NAME)?;
        let folder = Catalogue::folder(data, &options.catalogue);
        let host = opening.host;
        let watch = |products: u32| host.note(&format!("indexing WebShop's catalogue: {products} products"));
        let catalogue = Catalogue::open(&folder, &options.catalogue, &watch).map_err(|e| OpenError::of(suite, e))?;
        host.note(&format!(
            "WebShop: {} products, {} goals; nouns of titles: {}",
            catalogue.len(),
            catalogue.goals().len(),
            catalogue.nouns_source()
        ));
        let mut sets = BTreeMap::new();
        for (split, field, Range(from, to)) in [("test", "test", TEST), ("dev", "dev", options.dev)] {
            let goals = catalogue.goals().get(from..to.min(catalogue.goals().len())).unwrap_or_default();
            if goals.is_empty() {
                return Err(OpenError::of(suite, NoGoalsError { goals: catalogue.goals().len(), field, from, to }));
            }
            let bytes = serde_json::to_vec(goals).unwrap_or_default();
            let task = |number: usize| Task { id: format!("webshop-{number:03}"), fields: json!({"goal": number}) };
            sets.insert(split, TaskSet::made_from((from..from + goals.len()).map(task).collect(), &bytes));
        }
        let protocol = options.protocol;
        let limits = agentbench_limits(if protocol == AgentBenchProtocol::Fc { 20 } else { 10 });
        let (format, prompts) = (opening.format(protocol.format(FORMAT))?, Prompts::upstream().clone());
        Ok(Library::with_dev(WebShopSuite::new(protocol, format, limits, prompts, Some(Arc::new(catalogue))), sets))
    }
    fn flags(&self) -> Vec<Flag> {
        vec![
            AgentBenchProtocol::flag(),
            Flag::number("price-seed", Taken::Always).sets("catalogue.price_seed").help(
                "The seed that prices of WebShop's official goals are drawn with, which upstream leaves open [default: 233; for \
                 recordings 7]",
            ),
        ]
    }
    fn former(&self) -> &'static [(&'static str, &'static str)] {
        &[("agentbench.protocol", "protocol"), ("agentbench.webshop_dev", "dev"), ("agentbench.webshop", "catalogue")]
    }
    fn checked(&self, settings: &Settings) -> Result<Value, SettingsError> {
        settings.checked::<Options>(NAME)
    }
    fn data(&self, data: &Path, whole: bool) -> Vec<OfficialData> {
        let shop = CatalogueSettings::default();
        let folder = Catalogue::folder(data, &shop);
        let names = [&shop.products, &shop.attributes, &shop.instructions];
        vec![OfficialData {
            suite: NAME,
            from: "https://github.com/princeton-nlp/WebShop (Google Drive ids 1A2whVgOO0euk5O13n2iYDM0bQRkkRduB, \
                   1s2j6NgHljiZzQNL3veZaAiyW_qDEgBNi, 14Kb5SPBk_jfdLZ_CDBNitW98QLDlKR5O; 5.2 GB)",
            licence: "MIT; product texts are third parties'",
            found: names.into_iter().map(|name| OfficialData::file(&folder.join(name), whole)).collect(),
        }]
    }
    fn replies(&self) -> Option<(&'static str, ReplayReply)> {
        Some((FORMAT, reply))
    }
    fn recordings(&self) -> Option<&'static str> {
        Some("WebShop's pages, searches and rewards, and AgentBench's episodes on them; needs the catalogue")
    }
    fn replay(&self, traces: &Path, data: &Path, settings: &Settings) -> Result<Report, UnreadableError> {
        let options: Options = settings.read(NAME).map_err(|e| UnreadableError::Data(e.into()))?;
        let said = settings.has("catalogue.price_seed").then_some(options.catalogue.price_seed);
        replay(traces, data, said.unwrap_or(RECORDED_PRICES))
    }
}
