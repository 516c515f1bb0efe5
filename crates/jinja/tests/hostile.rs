//! Templates that nobody should be hurt by.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_jinja::{RenderError, SyntaxError, Template};
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error(transparent)]
    Render(#[from] RenderError),
}

fn render(source: &str) -> Result<String, Failure> {
    Ok(Template::new(source)?.render(BTreeMap::new(), chrono::NaiveDate::default())?)
}

#[test]
fn hostile_templates_end_in_errors() {
    let nest = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(500), close.repeat(500));
    let sources = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for a in range(100000) %}{% for b in range(100000) %}some text{% endfor %}{% endfor %}".to_owned(),
        "{{ 'x' * 10**8 }}".into(),
        "{{ 'x' * 10**40 }}".into(),
        "{{ [1] * (3 * 10**7) }}".into(),
        "{{ range(10**12) | list }}".into(),
        "{{ 'x'.ljust(10**8) }}{{ 'x'.center(10**8) }}".into(),
        "{{ 'x'.zfill(10**8) }}".into(),
        "{{ '%999999999d' % 1 }}".into(),
        "{{ '{:999999999}'.format(1) }}".into(),
        "{{ 'ab'.replace('', 'x' * 10000000) }}".into(),
        "{% set n = namespace(x='x') %}{% for i in range(26) %}{% set n.x = n.x + n.x %}{% endfor %}".into(),
        "{% set n = namespace(x='x') %}{% for i in range(26) %}{% set n.x = n.x ~ n.x %}{% endfor %}".into(),
        "{% set n = namespace(x=['x']) %}{% for i in range(26) %}{% set n.x = n.x + n.x %}{% endfor %}".into(),
        "{% set n = namespace(x=[]) %}{% for i in range(150) %}{% set n.x = [n.x] %}{% endfor %}".into(),
        "{% set n = namespace(x=[]) %}{% for i in range(150) %}{% set n.x = {'a': n.x} %}{% endfor %}".into(),
        "{% set n = namespace(x=[]) %}{% for i in range(24) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}".into(),
        "{% set n = namespace(x=[]) %}{% for i in range(24) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}".into(),
        "{% set n = namespace(x=[]) %}{% for i in range(24) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == n.x }}".into(),
        "{% set n = namespace(x=[]) %}{% for i in range(24) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ [n.x] < [n.x] }}".into(),
        "{% set x %}{% for a in range(100000) %}{% for b in range(1000) %}some text{% endfor %}{% endfor %}{% endset %}".into(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
        "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(1) }}".into(),
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}".into(),
        "{{ unknown() }}".into(),
        "{{ 'x' | unknown }}".into(),
        "{{ 'x' is unknown }}".into(),
        "{{ 'x'.unknown() }}".into(),
        "{% include 'chat' %}".into(),
        "{{ 1 // 0 }}".into(),
        "{{ nothing.nothing }}".into(),
        "{{".into(),
        "{% if %}".into(),
        "{% endif %}".into(),
        "{% if x %}{% endfor %}".into(),
        "{{ 'x }}".into(),
        nest("(", ")"),
        nest("[", "]"),
        nest("-", ""),
        nest("1 + ", ""),
        nest("'a' ~ ", ""),
        nest("{1:", "}"),
        nest("a[", "]"),
        "{% if x %}".repeat(140) + &"{% endif %}".repeat(140),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(140)),
        format!("{{{{ x{} }}}}", ".a".repeat(500)),
        format!("{{{{ x{} }}}}", "|trim".repeat(500)),
    ];
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for core in 0..cores {
            let sources = &sources;
            scope.spawn(move || {
                for source in sources.iter().skip(core).step_by(cores) {
                    let start: String = source.chars().take(90).collect();
                    match render(source) {
                        Err(error) => eprintln!("{start}: {error}"),
                        Ok(text) => panic!("{start}: wrote {} bytes", text.len()),
                    }
                }
            });
        }
    });
    assert_eq!(render("{{ raise_exception('No') }}"), Err(Failure::Render(RenderError::Refused("No".into()))));
    assert_eq!(render("{{ 'x' * 10**8 }}"), Err(Failure::Render(RenderError::TooLong(100_000_000))));
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(endless), Err(Failure::Render(RenderError::Endless)));
    let Err(Failure::Syntax(error)) = render("a\n{% if %}") else { panic!("not a template") };
    assert_eq!(error.line, 2);
}
