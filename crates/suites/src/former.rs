//! Experiments from before benchmarks had tables of their own.

use crate::{Registry, SettingsError};
use toml::{Table, Value};

impl Registry {
    /// The experiment with settings of benchmarks where they are now, if any are where they were.
    ///
    /// # Errors
    /// If a setting is in both places.
    pub fn modern(&self, experiment: &Table) -> Result<Option<Table>, SettingsError> {
        let mut modern = experiment.clone();
        let mut moved = Vec::new();
        for benchmark in self.iter() {
            for (path, key) in benchmark.former() {
                let Some(value) = get(experiment, path) else { continue };
                let now = format!("suite.{}.{key}", benchmark.name());
                if get(experiment, &now).is_some() {
                    return Err(SettingsError::Both { path: (*path).to_owned(), now });
                }
                put(&mut modern, &now, value.clone());
                moved.push(*path);
            }
        }
        if moved.is_empty() {
            return Ok(None);
        }
        moved.iter().for_each(|path| take(&mut modern, path));
        Ok(Some(modern))
    }
}

fn get<'t>(table: &'t Table, path: &str) -> Option<&'t Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { get(value.as_table()?, rest) }
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Table::new().into());
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Removes a value, and the tables that are empty without it.
fn take(table: &mut Table, path: &str) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    match table.get_mut(first) {
        Some(Value::Table(inner)) if !rest.is_empty() => {
            take(inner, rest);
            if inner.is_empty() {
                table.remove(first);
            }
        }
        _ if rest.is_empty() => drop(table.remove(first)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern(text: &str) -> Result<Option<Table>, SettingsError> {
        Registry::default().modern(&toml::from_str(text).unwrap())
    }

    #[test]
    fn former_settings_are_found() {
        let now =
            modern("name = 'x'\n[agentbench]\nos_root = '/box'\nprotocol = 'fc'\n[agentbench.webshop]\nprice_seed = 7")
                .unwrap()
                .unwrap();
        let expected = "name = 'x'\n[suite.os]\nroot = '/box'\nprotocol = 'fc'\n[suite.dbbench]\nprotocol = 'fc'\n\
            [suite.webshop]\nprotocol = 'fc'\n[suite.webshop.catalogue]\nprice_seed = 7\n[suite.alfworld]\nprotocol = 'fc'";
        assert_eq!(now, toml::from_str(expected).unwrap());
        assert_eq!(modern("name = 'x'\n[suite.os]\nroot = '/box'").unwrap(), None);
        let error = modern("[tau]\nuser = 'llm'\n[suite.tau]\nuser = 'llm'").unwrap_err().to_string();
        assert!(error.contains("`tau.user`") && error.contains("`suite.tau.user`"), "{error}");
        // What is unknown stays where it is, and is refused there.
        assert!(modern("[tau]\nuser = 'llm'\nother = 1").unwrap().unwrap().contains_key("tau"));
    }
}
