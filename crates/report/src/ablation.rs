//! The page of an experiment's ablations.

use crate::{Table, plain};
use askama::Template;

/// A figure or a check: what it shows, and the values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AblationPart {
    /// Its place in the page.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// One sentence on what it shows.
    pub says: String,
    /// A chart of [`charts`](crate::charts).
    pub chart: Option<String>,
    /// Its values.
    pub tables: Vec<Table>,
}

#[derive(Template)]
#[template(path = "ablation.html")]
struct Page<'p> {
    title: &'p str,
    summary: &'p str,
    parts: &'p [AblationPart],
}

/// The page as one file.
#[must_use]
pub fn ablation_page(title: &str, summary: &str, parts: &[AblationPart]) -> String {
    let shown = |texts: &[String]| texts.iter().map(|text| plain(text)).collect::<Vec<_>>();
    let table = |t: &Table| Table {
        title: plain(&t.title),
        head: shown(&t.head),
        rows: t.rows.iter().map(|row| shown(row)).collect(),
        note: plain(&t.note),
    };
    let part = |p: &AblationPart| AblationPart {
        title: plain(&p.title),
        says: plain(&p.says),
        tables: p.tables.iter().map(table).collect(),
        ..p.clone()
    };
    let parts: Vec<AblationPart> = parts.iter().map(part).collect();
    // Writing to a string cannot fail.
    Page { title: &plain(title), summary: &plain(summary), parts: &parts }.render().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_page() {
        let mut table = Table::new("t", &["<b>"]);
        table.rows.push(vec!["\u{202e}</script>".into()]);
        let part =
            AblationPart { id: "figure3".into(), says: "a & b".into(), tables: vec![table], ..AblationPart::default() };
        let chart = Some("<svg></svg>".to_owned());
        let page = ablation_page("x<y", "s", &[part.clone(), AblationPart { chart, ..part }]);
        assert!(page.contains("<title>x&#60;y</title>") && page.contains("a &#38; b"), "{page}");
        assert!(!page.contains("<b>") && !page.contains("</script>") && !page.contains('\u{202e}'));
        assert_eq!((page.matches("<svg>").count(), page.matches("<details open>").count()), (1, 1));
    }
}
