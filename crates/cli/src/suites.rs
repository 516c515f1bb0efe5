//! Flags of commands that set suites up: where suites are, and the benchmarks' own settings.

use anyhow::Result;
use clap::builder::{PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use rolegraft_nano::builtin::benchmarks;
use rolegraft_suites::{AllSettings, Registry, Setup, Taken};
use std::path::{Path, PathBuf};

/// Commands that set a benchmark up for anything.
pub(crate) const ALWAYS: u8 = Taken::Always as u8;
/// Commands that read or score what agents say.
pub(crate) const READING: u8 = Taken::Reading as u8;
/// Commands that play.
pub(crate) const PLAYING: u8 = Taken::Playing as u8;

/// Where suites are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// Folder of the suites' folders [default: `benchmarks` where it is here, else the built-in one].
    #[arg(long, value_name = "DIR")]
    suites: Option<PathBuf>,
    /// Play the official tasks in this folder, where a suite has any (`rolegraft data` lists them), instead of the built-in
    /// ones.
    #[arg(long, env = "ROLEGRAFT_DATA")]
    data: Option<PathBuf>,
}

/// The benchmarks' own settings: their flags, and `--set`.
#[derive(Debug, Clone)]
pub(crate) struct SettingFlags<const TAKEN: u8> {
    /// What flags say, by flag.
    said: Vec<(&'static str, String)>,
    /// What `--set` says.
    pairs: Vec<String>,
}

/// Both.
#[derive(Debug, Clone, Args)]
pub(crate) struct SuiteFlags<const TAKEN: u8> {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    pub(crate) settings: SettingFlags<TAKEN>,
}

/// What flags come to.
pub(crate) struct Resolved<'f> {
    registry: Registry,
    settings: AllSettings,
    suites: PathBuf,
    data: Option<&'f Path>,
}

/// The folder of the suites' folders that is meant where none is named.
pub(crate) const HERE: &str = "benchmarks";

/// What is here wins over what comes with the program, if it holds suites.
pub(crate) fn suites_folder() -> Result<PathBuf> {
    let here = Path::new(HERE);
    let mut entries = here.read_dir().into_iter().flatten().flatten();
    let holds_suites = entries.any(|entry| entry.path().join("suite.toml").is_file());
    Ok(if holds_suites { here.to_owned() } else { benchmarks()? })
}

/// A whole number, as it is written.
fn whole_number(text: &str) -> Result<String, String> {
    text.parse::<u32>().map(|number| number.to_string()).map_err(|e| e.to_string())
}

const fn taken(kind: u8) -> Taken {
    match kind {
        ALWAYS => Taken::Always,
        READING => Taken::Reading,
        _ => Taken::Playing,
    }
}

impl<const TAKEN: u8> Args for SettingFlags<TAKEN> {
    fn augment_args(command: Command) -> Command {
        let own: Vec<String> = command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
        let registry = Registry::default();
        let flags = registry.flags(taken(TAKEN)).into_iter().filter(|(flag, _)| !own.iter().any(|o| o == flag.name));
        let command = flags.fold(command, |command, (flag, _)| {
            let arg = Arg::new(flag.name).long(flag.name).help(flag.help).conflicts_with_all(flag.conflicts);
            let arg = match flag.value {
                None => arg.action(ArgAction::SetTrue),
                Some(value) if flag.number => arg.value_name(value).value_parser(whole_number),
                Some(value) if flag.values.is_empty() => arg.value_name(value).value_parser(ValueParser::string()),
                Some(value) => arg.value_name(value).value_parser(PossibleValuesParser::new(flag.values)),
            };
            let arg = if let Some(default) = flag.default { arg.default_value(default) } else { arg };
            command.arg(if let Some(env) = flag.env { arg.env(env).hide_env_values(true) } else { arg })
        });
        command.arg(
            Arg::new("set")
                .long("set")
                .value_name("NAME.KEY=VALUE")
                .action(ArgAction::Append)
                .help("A setting of a benchmark, as KEY under [suite.NAME] in an experiment; wins over flags"),
        )
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const TAKEN: u8> FromArgMatches for SettingFlags<TAKEN> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        use clap::parser::ValueSource::DefaultValue;
        let mut said = Vec::new();
        for (flag, _) in Registry::default().flags(taken(TAKEN)) {
            // A command may have a flag of that name for itself.
            if !matches.try_contains_id(flag.name).unwrap_or(false)
                || matches.value_source(flag.name).is_none_or(|source| source == DefaultValue)
            {
                continue;
            }
            if flag.value.is_none() {
                said.extend(matches.get_flag(flag.name).then(|| (flag.name, "true".to_owned())));
            } else if let Ok(Some(value)) = matches.try_get_one::<String>(flag.name) {
                said.push((flag.name, value.clone()));
            }
        }
        let pairs = matches.get_many::<String>("set").unwrap_or_default().cloned().collect();
        Ok(Self { said, pairs })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const TAKEN: u8> SettingFlags<TAKEN> {
    /// The settings of all benchmarks. `more`: what flags of the command's own say as well.
    pub(crate) fn resolve(&self, registry: &Registry, more: &[(&str, &str)]) -> Result<AllSettings> {
        let mut settings = AllSettings::new();
        let flags = registry.flags(taken(TAKEN));
        let said = self.said.iter().map(|(flag, value)| (*flag, value.as_str())).chain(more.iter().copied());
        for (name, value) in said {
            let Some((flag, targets)) = flags.iter().find(|(flag, _)| flag.name == name) else { continue };
            for (benchmark, key) in targets {
                let settings = settings.entry((*benchmark).to_owned()).or_default();
                match flag.value {
                    None => settings.set(key, true),
                    Some(_) if flag.number => settings.set(key, value.parse::<i64>()?),
                    Some(_) => settings.set(key, value),
                }
            }
        }
        for pair in &self.pairs {
            registry.set(&mut settings, pair)?;
        }
        registry.check(&settings)?;
        Ok(settings)
    }
}

impl<const TAKEN: u8> SuiteFlags<TAKEN> {
    pub(crate) fn resolve(&self, more: &[(&str, &str)]) -> Result<Resolved<'_>> {
        let registry = Registry::default();
        let settings = self.settings.resolve(&registry, more)?;
        let suites = self.places.suites.clone().map_or_else(suites_folder, Ok)?;
        Ok(Resolved { registry, settings, suites, data: self.places.data.as_deref() })
    }
}

impl Resolved<'_> {
    pub(crate) fn as_setup(&self) -> Setup<'_> {
        Setup { registry: &self.registry, suites: &self.suites, data: self.data, settings: &self.settings }
    }
}
