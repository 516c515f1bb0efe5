//! WebShop's text environment, and AgentBench's task on it.
//!
//! A [`Catalogue`] is a folder with WebShop's files, indexed once; [`Session`] is a shopper's way through the pages, without Flask,
//! Lucene or spaCy (princeton-nlp/WebShop@64fa2a5). [`WebShopSuite`] is AgentBench's loop around it.

pub mod analyzer;
mod benchmark;
mod builder;
mod catalogue;
mod environment;
mod goals;
mod index;
mod layout;
mod postings;
mod product;
mod random;
mod ranking;
mod ratio;
mod replay;
mod reward;
mod shop;

pub use benchmark::WebShop;
pub use catalogue::{Catalogue, CatalogueError, Settings, Watch};
pub use environment::{FORMAT, Prompts, Turn, WebShopSuite};
pub use goals::{Goal, GoalOptions};
pub use product::{Menu, Product, RawAttributes, RawProduct};
pub use random::Random;
pub use ranking::Hit;
pub use ratio::token_set_ratio;
pub use reward::{Reward, normalize_color, nouns, reward};
pub use shop::{Available, Session, Stepped, parse_action};
