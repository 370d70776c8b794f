//! `#[message]`: checks a struct or an enum and writes its rkyv derives, `Field` and `Message`.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericParam, Ident, Lifetime, Meta, Token,
    Type, ext::IdentExt, parse_quote, punctuated::Punctuated, spanned::Spanned,
};

use crate::{
    attributes::cfgs,
    errors::{Errors, with_errors},
    field, lifetimes,
};

/// The item with what makes it a message; `compile_error!`s where it cannot be one.
pub(crate) fn expand(args: TokenStream, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    if !args.is_empty() {
        errors.push_at(&args, "`#[message]` has no options");
    }
    let Ok(mut item) = syn::parse2::<DeriveInput>(input.clone()) else {
        errors.push_at(&input, "`#[message]` goes on a struct or an enum");
        return with_errors(&input, errors);
    };
    if let Data::Union(union) = &item.data {
        errors.push_at(union.union_token, UNION);
        return with_errors(&item, errors);
    }
    if let Data::Enum(data) = &item.data
        && data.variants.is_empty()
    {
        errors.push_at(&item.ident, "an enum without variants has no value to send");
        return with_errors(&item, errors);
    }
    check_generics(&item, &mut errors);
    check_rkyv_options(&mut item, &mut errors);
    check_variants(&mut item, &mut errors);
    let fields = prepare_fields(&mut item, &mut errors);
    generate(&item, &fields, errors)
}

/// What the fields of a message say about the whole.
struct PreparedFields {
    /// For how long the fields borrow, where they do; there is then nothing to deserialize into.
    lifetime: Option<Lifetime>,
    /// Types in fields that only the compiler can judge, each once.
    unknown: Vec<Type>,
}

fn check_generics(item: &DeriveInput, errors: &mut Errors) {
    for parameter in &item.generics.params {
        match parameter {
            GenericParam::Lifetime(_) => {}
            GenericParam::Type(parameter) => errors.push_at(&parameter.ident, TYPE_PARAMETER),
            GenericParam::Const(parameter) => errors.push_at(&parameter.ident, TYPE_PARAMETER),
        }
    }
}

/// Lets through the options of rkyv that leave the layout as it is.
fn check_rkyv_options(item: &mut DeriveInput, errors: &mut Errors) {
    item.attrs.retain(|attribute| {
        if !attribute.path().is_ident("rkyv") {
            return true;
        }
        match attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
            Ok(options) => {
                let refused = options.iter().find(|option| {
                    !TYPE_OPTIONS.iter().any(|allowed| option.path().is_ident(allowed))
                });
                if let Some(option) = refused {
                    errors.push_at(option, TYPE_OPTION);
                }
                refused.is_none()
            }
            Err(error) => {
                errors.push(error);
                false
            }
        }
    });
}

fn check_variants(item: &mut DeriveInput, errors: &mut Errors) {
    let Data::Enum(data) = &mut item.data else {
        return;
    };
    if let Some(variant) = data.variants.iter().nth(VARIANTS_MAX) {
        errors.push_at(variant, "a message has at most 256 variants: the tag on the wire is a u8");
    }
    for variant in &mut data.variants {
        refuse_rkyv(&mut variant.attrs, errors);
        if let Some((_, value)) = &variant.discriminant {
            errors.push_at(value, DISCRIMINANT);
            variant.discriminant = None;
        }
    }
}

/// Checks each field and gives it the attribute that archives its borrows.
fn prepare_fields(item: &mut DeriveInput, errors: &mut Errors) -> PreparedFields {
    let owner = item.ident.clone();
    // With a parameter that is refused, no field's type is one that the wire knows.
    let generic = item.generics.type_params().next().is_some()
        || item.generics.const_params().next().is_some();
    let mut prepared = PreparedFields {
        // A parameter comes before `'static`, for which not every field can borrow.
        lifetime: item.generics.lifetimes().next().map(|parameter| parameter.lifetime.clone()),
        unknown: Vec::new(),
    };
    for field in fields_mut(&mut item.data) {
        refuse_rkyv(&mut field.attrs, errors);
        match check_field(field, &owner, &mut prepared.lifetime) {
            Ok(_) if generic => field.attrs.push(skip()),
            Ok(with) => {
                field.attrs.extend(with);
                // A where clause cannot be conditional; the use of LAYOUT asserts it as well.
                if cfgs(&field.attrs).next().is_none() {
                    prepared.unknown.extend(field::unknown(&field.ty));
                }
            }
            Err(error) => {
                errors.push(error);
                field.attrs.push(skip());
            }
        }
    }
    let mut seen = HashSet::new();
    prepared.unknown.retain(|ty| seen.insert(ty.to_token_stream().to_string()));
    prepared
}

/// The attribute that archives the field's borrows, if it needs one. `lifetime` is that of the
/// fields before.
fn check_field(
    field: &mut Field,
    owner: &Ident,
    lifetime: &mut Option<Lifetime>,
) -> Result<Option<Attribute>, Error> {
    let written = field.ty.clone();
    let was_incomplete = lifetimes::complete(&mut field.ty);
    field::check(&written, owner)?;
    let with = field::with_of(&written)?;
    if was_incomplete {
        return Err(Error::new_spanned(written, LIFETIME));
    }
    for named in lifetimes::named(&field.ty) {
        let first = lifetime.get_or_insert_with(|| named.clone());
        // rkyv's bounds for two types that differ in lifetimes only are ambiguous.
        if named != *first {
            return Err(Error::new(
                named.span(),
                format!(
                    "a message borrows for one lifetime, and `{named}` is a second: write \
                     `{first}` here too; what is borrowed for longer fits"
                ),
            ));
        }
    }
    Ok(with.map(|with| parse_quote!(#[rkyv(with = #with)])))
}

fn generate(item: &DeriveInput, fields: &PreparedFields, errors: Errors) -> TokenStream {
    let name = &item.ident;
    let (impl_generics, type_generics, where_clause) = item.generics.split_for_impl();
    let cfgs: Vec<_> = cfgs(&item.attrs).collect();
    let deserialize = (errors.is_empty() && fields.lifetime.is_none())
        .then(|| quote!(, ::ringcall::rkyv::Deserialize));

    let (assertion, layout) = match errors.is_empty() {
        true => (assertion(&fields.unknown, &cfgs), layout(item)),
        false => (TokenStream::new(), quote!(0)),
    };
    let errors = errors.into_tokens();
    quote! {
        #errors

        #assertion

        #[derive(::ringcall::rkyv::Archive, ::ringcall::rkyv::Serialize #deserialize)]
        #[rkyv(crate = ::ringcall::rkyv)]
        #item

        #(#cfgs)*
        #[automatically_derived]
        impl #impl_generics ::ringcall::Field for #name #type_generics #where_clause {
            const LAYOUT: u64 = #layout;
        }

        #(#cfgs)*
        #[automatically_derived]
        impl #impl_generics ::ringcall::Message for #name #type_generics #where_clause {}
    }
}

/// An item that compiles where each type of a field that only the compiler can judge travels.
///
/// The compiler reports in the order of items: standing first, this lets it say which field's
/// type is at fault before rkyv's derives fail on the same type.
fn assertion(unknown: &[Type], cfgs: &[&Attribute]) -> TokenStream {
    if unknown.is_empty() {
        return TokenStream::new();
    }
    let bounds = unknown.iter().map(|ty| {
        // At the type's place, so that the compiler points there.
        let span = Span::call_site().located_at(ty.span());
        let ty = lifetimes::statics(ty);
        quote_spanned!(span=> #ty: ::ringcall::Field)
    });
    quote! {
        #(#cfgs)*
        const _: () = {
            #[allow(dead_code)]
            struct FieldsTravel
            where
                #(#bounds,)*;
        };
    }
}

/// The fingerprint's expression: names and fingerprints of the fields, size and alignment.
fn layout(item: &DeriveInput) -> TokenStream {
    let archived = quote!(::ringcall::rkyv::Archived<Self>);
    let (function, parts) = match &item.data {
        Data::Enum(data) => {
            let variants = data.variants.iter().map(|variant| {
                let cfgs = cfgs(&variant.attrs);
                let name = variant.ident.unraw().to_string();
                let fields = field_layouts(&variant.fields);
                quote!(#(#cfgs)* (#name, &[#(#fields),*]))
            });
            (quote!(layout_of_enum), quote!(&[#(#variants),*]))
        }
        Data::Struct(data) => {
            let fields = field_layouts(&data.fields);
            (quote!(layout_of_struct), quote!(&[#(#fields),*]))
        }
        Data::Union(_) => (quote!(layout_of_struct), quote!(&[])),
    };
    quote! {
        ::ringcall::layout::#function(
            #parts,
            ::core::mem::size_of::<#archived>(),
            ::core::mem::align_of::<#archived>(),
        )
    }
}

/// `("name", <Type as Field>::LAYOUT)` for each field; fields without a name are numbered.
fn field_layouts(fields: &Fields) -> impl Iterator<Item = TokenStream> {
    fields.iter().enumerate().map(|(index, field)| {
        let cfgs = cfgs(&field.attrs);
        let ty = &field.ty;
        let name = match &field.ident {
            Some(name) => name.unraw().to_string(),
            None => index.to_string(),
        };
        quote!(#(#cfgs)* (#name, <#ty as ::ringcall::Field>::LAYOUT))
    })
}

fn fields_mut(data: &mut Data) -> Vec<&mut Field> {
    match data {
        Data::Struct(data) => data.fields.iter_mut().collect(),
        Data::Enum(data) => {
            data.variants.iter_mut().flat_map(|variant| variant.fields.iter_mut()).collect()
        }
        Data::Union(data) => data.fields.named.iter_mut().collect(),
    }
}

/// Takes `#[rkyv(...)]` off a field or variant.
fn refuse_rkyv(attributes: &mut Vec<Attribute>, errors: &mut Errors) {
    attributes.retain(|attribute| {
        let is_rkyv = attribute.path().is_ident("rkyv");
        if is_rkyv {
            errors.push_at(attribute, FIELD_OPTION);
        }
        !is_rkyv
    });
}

/// Leaves a field that is refused out of the archive, so that rkyv does not complain of it too.
fn skip() -> Attribute {
    parse_quote!(#[rkyv(omit_bounds, with = ::ringcall::rkyv::with::Skip)])
}

const TYPE_OPTIONS: [&str; 4] = ["archived", "compare", "derive", "resolver"];
const TYPE_OPTION: &str = "not an option for a message, since the layout's fingerprint would not \
    show it; accepted are `archived`, `compare`, `derive` and `resolver`";
const FIELD_OPTION: &str = "rkyv's options are not for the fields of a message: the layout's \
    fingerprint would not show them";
const TYPE_PARAMETER: &str = "a message has no parameters but lifetimes: the layout's fingerprint, \
    which both ends compare, is of one concrete type; write a message for each type that travels";
const DISCRIMINANT: &str = "a variant of a message has no number of its own: its tag on the wire \
    is its place in the enum; remove it";
const LIFETIME: &str = "name the lifetime (`&'a T`) and give the message the parameter (`<'a>`)";
const UNION: &str = "a union cannot travel: its bytes do not say which field they hold; use an \
    enum";

/// rkyv's tag is one byte.
const VARIANTS_MAX: usize = 256;
