//! `#[service(name = "...")]` and `#[rpc(id = N)]`.

use proc_macro2::TokenStream;
use syn::{
    Attribute, Error, Ident, LitInt, LitStr, Meta,
    meta::ParseNestedMeta,
    parse::{Parse, Parser},
};

/// The name that `#[service(...)]` gives, if it does.
///
/// # Errors
///
/// An unknown option, one given twice, or a name that is no dotted list of identifiers.
pub(crate) fn service_name(args: TokenStream) -> Result<Option<String>, Error> {
    let mut name = None;
    let parser = syn::meta::parser(|option| {
        if option.path.is_ident("name") {
            let text: LitStr = value(&option, &name)?;
            if !text.value().split('.').all(is_identifier) {
                return Err(Error::new(text.span(), NAME));
            }
            name = Some(text.value());
            return Ok(());
        }
        Err(unknown(&option, SERVICE_OPTIONS))
    });
    parser.parse2(args)?;
    Ok(name)
}

/// Takes `#[rpc(...)]` off a method: the id it gives, if it does.
///
/// # Errors
///
/// An unknown option, one given twice, or an id that is no `u32`.
pub(crate) fn take_rpc_id(attributes: &mut Vec<Attribute>) -> Result<Option<u32>, Error> {
    let (rpc, others) = attributes.drain(..).partition::<Vec<_>, _>(is_rpc);
    *attributes = others;
    let mut id = None;
    for attribute in &rpc {
        if !matches!(attribute.meta, Meta::List(_)) {
            return Err(Error::new_spanned(attribute, format!("expected {RPC_OPTIONS}")));
        }
        attribute.parse_nested_meta(|option| {
            if option.path.is_ident("id") {
                let number: LitInt = value(&option, &id)?;
                let parsed = number.base10_parse().map_err(|_| Error::new(number.span(), ID))?;
                id = Some(parsed);
                return Ok(());
            }
            Err(unknown(&option, RPC_OPTIONS))
        })?;
    }
    Ok(id)
}

/// Whether this is ringcall's `#[rpc(...)]`.
pub(crate) fn is_rpc(attribute: &Attribute) -> bool {
    attribute.path().is_ident("rpc")
}

/// What stands after `option =`, where the option is not `set` yet.
fn value<T: Parse, V>(option: &ParseNestedMeta<'_>, set: &Option<V>) -> Result<T, Error> {
    match set {
        Some(_) => Err(option.error("this option is given twice")),
        None => option.value()?.parse(),
    }
}

fn unknown(option: &ParseNestedMeta<'_>, options: &str) -> Error {
    let name = option.path.get_ident().map(Ident::to_string).unwrap_or_default();
    option.error(format!("unknown option `{name}`; expected {options}"))
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|next| next.is_ascii_alphanumeric() || next == '_')
}

const SERVICE_OPTIONS: &str = "`#[service(name = \"package.Service\")]`";
const RPC_OPTIONS: &str = "`#[rpc(id = N)]`";
const NAME: &str = "a service's name is identifiers with dots between them, like `acme.Kv`";
const ID: &str = "a method's id is a number from 0 to 4294967295";

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::parse_quote;

    use super::*;

    #[test]
    fn a_service_may_be_named() {
        assert_eq!(service_name(quote!()).unwrap(), None);
        assert_eq!(service_name(quote!(name = "acme.Kv")).unwrap().as_deref(), Some("acme.Kv"));
    }

    #[test]
    fn a_name_that_is_no_dotted_list_of_identifiers_is_refused() {
        for name in ["", ".", "acme.", "acme..Kv", "acme Kv", "1.Kv"] {
            assert!(service_name(quote!(name = #name)).is_err(), "{name}");
        }
        assert!(service_name(quote!(name = "A", name = "B")).is_err());
        assert!(service_name(quote!(title = "A")).is_err());
    }

    #[test]
    fn an_id_is_taken_off_the_method() {
        let mut attributes = vec![parse_quote!(#[doc = "d"]), parse_quote!(#[rpc(id = 0x10)])];
        assert_eq!(take_rpc_id(&mut attributes).unwrap(), Some(16));
        assert_eq!(attributes.len(), 1);
        assert_eq!(take_rpc_id(&mut attributes).unwrap(), None);
    }

    #[test]
    fn a_wrong_option_of_a_method_is_refused_and_taken_off() {
        for attribute in [
            parse_quote!(#[rpc]),
            parse_quote!(#[rpc(timeout = "5ms")]),
            parse_quote!(#[rpc(id = 4294967296)]),
            parse_quote!(#[rpc(id = 1, id = 1)]),
            parse_quote!(#[rpc(id)]),
        ] {
            let mut attributes = vec![attribute];
            assert!(take_rpc_id(&mut attributes).is_err());
            assert!(attributes.is_empty());
        }
    }
}
