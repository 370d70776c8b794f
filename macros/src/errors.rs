//! Mistakes found in one expansion, all reported together, each at the user's line.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::Error;

/// The errors so far. Expansion goes on after one, so that the rest of the program still finds
/// the items it names and the user reads one error for one mistake.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Adds the error at `tokens`.
    pub(crate) fn push_at(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.push(Error::new_spanned(tokens, message));
    }

    /// Adds the error, where the result is one.
    pub(crate) fn extend(&mut self, result: Result<(), Error>) {
        if let Err(error) = result {
            self.push(error);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// `compile_error!` for each error; nothing where there is none.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0.map(Error::into_compile_error).unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn messages(self) -> Vec<String> {
        self.0.into_iter().flatten().map(|error| error.to_string()).collect()
    }
}

/// The item as the user wrote it, for a mistake that leaves nothing to generate.
pub(crate) fn with_errors(item: impl ToTokens, errors: Errors) -> TokenStream {
    let mut tokens = errors.into_tokens();
    item.to_tokens(&mut tokens);
    tokens
}
