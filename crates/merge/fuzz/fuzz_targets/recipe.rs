//! Any text as a recipe, in both languages: an error or a recipe whose models are all named.
#![no_main]
use rolegraft_merge::Recipe;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|text: &str| {
    for path in ["recipe.yaml", "recipe.toml"] {
        if let Ok(recipe) = Recipe::parse(text, Path::new(path)) {
            assert!(recipe.base.is_none_or(|base| base < recipe.models.len()));
        }
    }
});
