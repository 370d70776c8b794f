//! One method of a service: its form is checked, and what is generated for it is read off it.

use std::fmt::Display;

use quote::ToTokens;
use syn::{
    Attribute, Error, FnArg, GenericArgument, GenericParam, Ident, Path, PathArguments, Receiver,
    ReturnType, Signature, TraitItemFn, Type, TypePath, ext::IdentExt,
};

/// A method that has the expected form.
pub(crate) struct Method {
    pub(crate) name: Ident,
    /// Doc comments and conditions.
    pub(crate) attributes: Vec<Attribute>,
    /// `Kv.get`.
    pub(crate) wire_name: String,
    pub(crate) id: u32,
    /// The name of the constant that holds the id.
    pub(crate) constant: Ident,
    /// `Q` of `Request<'_, Q>`, as written.
    pub(crate) request: Type,
    /// `R` of `Result<R, Status>`, as written.
    pub(crate) reply: Type,
}

impl Method {
    /// Reads a method of the service named `service`. Its id follows from its name.
    ///
    /// # Errors
    ///
    /// The first thing about the method that is not of the form
    /// `async fn name(&self, cx: &Context, request: Request<'_, T>) -> Result<R, Status>`.
    pub(crate) fn new(method: &TraitItemFn, service: &str) -> Result<Self, Error> {
        let signature = &method.sig;
        let name = signature.ident.unraw().to_string();
        if let Some(body) = &method.default {
            return Err(wrong(body, signature, "a service's method has no body in the trait"));
        }
        check_qualifiers(signature)?;
        let request = request_of(signature)?;
        let reply = reply_of(signature)?;
        if RESERVED.iter().any(|reserved| name == *reserved) {
            let message =
                format!("`{name}` is a name that the generated client needs; choose another");
            return Err(Error::new(signature.ident.span(), message));
        }
        let wire_name = format!("{service}.{name}");
        Ok(Self {
            attributes: method.attrs.clone(),
            id: crate::id::of(&wire_name),
            constant: Ident::new(&name.to_ascii_uppercase(), signature.ident.span()),
            name: signature.ident.clone(),
            wire_name,
            request: request.clone(),
            reply: reply.clone(),
        })
    }
}

fn check_qualifiers(signature: &Signature) -> Result<(), Error> {
    if let Some(token) = &signature.constness {
        return Err(wrong(token, signature, "a service's method is not `const`"));
    }
    if let Some(token) = &signature.unsafety {
        return Err(wrong(token, signature, "a service's method is not `unsafe`"));
    }
    if let Some(token) = &signature.abi {
        return Err(wrong(token, signature, "a service's method has no ABI of its own"));
    }
    for parameter in &signature.generics.params {
        if !matches!(parameter, GenericParam::Lifetime(_)) {
            return Err(wrong(parameter, signature, METHOD_PARAMETER));
        }
    }
    match signature.asyncness {
        Some(_) => Ok(()),
        None => Err(wrong(signature.fn_token, signature, "a service's method is `async`")),
    }
}

/// Checks the parameters; the message type of the last.
fn request_of(signature: &Signature) -> Result<&Type, Error> {
    let mut inputs = signature.inputs.iter();
    let name = &signature.ident;
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if is_plain_self(receiver) => {}
        Some(FnArg::Receiver(receiver)) => {
            return Err(wrong(receiver, signature, "a service is called through `&self`"));
        }
        Some(FnArg::Typed(_)) | None => {
            return Err(wrong(name, signature, "a service's method takes `&self`"));
        }
    }
    match inputs.next() {
        Some(FnArg::Typed(context)) if is_context(&context.ty) => {}
        Some(other) => {
            return Err(wrong(other, signature, "the first parameter is the call's context"));
        }
        None => {
            return Err(wrong(name, signature, "the method takes no context and no request"));
        }
    }
    let request = match inputs.next() {
        Some(FnArg::Typed(argument)) => match request_message(&argument.ty) {
            Some(message) => message,
            None => {
                return Err(wrong(&argument.ty, signature, "the second parameter is the request"));
            }
        },
        Some(FnArg::Receiver(receiver)) => {
            return Err(wrong(receiver, signature, "`self` is the first parameter"));
        }
        None => return Err(wrong(name, signature, "the method takes no request")),
    };
    match inputs.next() {
        Some(more) => Err(wrong(more, signature, "a method takes one request and no more")),
        None => check_message(request, signature).map(|()| request),
    }
}

/// The message type of the result.
fn reply_of(signature: &Signature) -> Result<&Type, Error> {
    let ReturnType::Type(_, output) = &signature.output else {
        return Err(wrong(&signature.ident, signature, "the method returns no result"));
    };
    let reply = match last_arguments(output, "Result").as_deref() {
        Some([GenericArgument::Type(reply), GenericArgument::Type(status)])
            if is_named(status, "Status") =>
        {
            reply
        }
        _ => {
            return Err(wrong(output, signature, "a method returns a reply or a status"));
        }
    };
    check_message(reply, signature).map(|()| reply)
}

/// Refuses types that have no name outside the method's signature.
fn check_message(ty: &Type, signature: &Signature) -> Result<(), Error> {
    match ty {
        Type::ImplTrait(_) | Type::TraitObject(_) | Type::Infer(_) | Type::Macro(_) => {
            Err(wrong(ty, signature, "a message is a concrete type"))
        }
        Type::Path(path) if starts_with_self(path) => {
            Err(wrong(ty, signature, "a message does not depend on who serves it"))
        }
        _ => Ok(()),
    }
}

/// `T` of `Request<'_, T>` or `Request<T>`.
fn request_message(ty: &Type) -> Option<&Type> {
    match last_arguments(ty, "Request")?.as_slice() {
        [GenericArgument::Lifetime(_), GenericArgument::Type(message)]
        | [GenericArgument::Type(message)] => Some(message),
        _ => None,
    }
}

/// Whether the receiver is `&self`, with or without a lifetime.
fn is_plain_self(receiver: &Receiver) -> bool {
    receiver.reference.is_some() && receiver.mutability.is_none() && receiver.colon_token.is_none()
}

fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => {
            reference.mutability.is_none() && is_named(&reference.elem, "Context")
        }
        _ => false,
    }
}

fn is_named(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|last| last.ident == name)
}

fn starts_with_self(path: &TypePath) -> bool {
    path.path.segments.first().is_some_and(|first| first.ident == "Self")
}

/// The generic arguments of a path that ends in `name`.
fn last_arguments<'a>(ty: &'a Type, name: &str) -> Option<Vec<&'a GenericArgument>> {
    let last = last_segment(ty).filter(|last| last.ident == name)?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) => Some(arguments.args.iter().collect()),
        _ => None,
    }
}

fn last_segment(ty: &Type) -> Option<&syn::PathSegment> {
    match ty {
        Type::Path(TypePath { qself: None, path: Path { segments, .. } }) => segments.last(),
        _ => None,
    }
}

/// An error at `at` that says what is wrong and what the method should look like.
fn wrong(at: impl ToTokens, signature: &Signature, what: impl Display) -> Error {
    let name = &signature.ident;
    Error::new_spanned(
        at,
        format!(
            "{what}; expected `async fn {name}(&self, cx: &Context, request: Request<'_, T>) -> \
             Result<R, Status>`"
        ),
    )
}

/// Functions of every client.
const RESERVED: [&str; 4] = ["client", "connect", "methods", "with"];
const METHOD_PARAMETER: &str = "a method has no parameters but lifetimes: the layouts of its \
    messages, which both ends compare, are of concrete types";

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn read(method: TraitItemFn) -> Result<Method, Error> {
        Method::new(&method, "Kv")
    }

    fn text(tokens: impl ToTokens) -> String {
        tokens.to_token_stream().to_string().replace(' ', "")
    }

    #[test]
    fn a_method_of_the_expected_form_is_read() {
        let method = read(parse_quote! {
            async fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
        });
        let method = method.unwrap();
        assert_eq!(method.wire_name, "Kv.get");
        assert_eq!(method.id, crate::id::of("Kv.get"));
        assert_eq!(method.constant, "GET");
        assert_eq!(text(method.request), "Get");
        assert_eq!(text(method.reply), "Got");
    }

    #[test]
    fn paths_lifetimes_and_raw_names_are_accepted() {
        let method = read(parse_quote! {
            async fn r#type<'a>(
                &'a self,
                _: &'a ringcall::Context,
                request: ringcall::Request<'a, v1::Blob<'a>>,
            ) -> std::result::Result<v1::Blob<'a>, ringcall::Status>;
        });
        let method = method.unwrap();
        assert_eq!(method.wire_name, "Kv.type");
        assert_eq!(method.constant, "TYPE");
        assert_eq!(text(method.request), "v1::Blob<'a>");
        assert_eq!(text(method.reply), "v1::Blob<'a>");
    }

    #[test]
    fn what_is_missing_is_named_with_the_expected_form() {
        let error = |method| read(method).err().unwrap().to_string();
        let missing = error(parse_quote! {
            async fn get(&self, cx: &Context) -> Result<Got, Status>;
        });
        assert!(missing.starts_with("the method takes no request; expected `async fn get(&self"));
        let missing = error(parse_quote! {
            fn get(&self, cx: &Context, request: Request<'_, Get>) -> Result<Got, Status>;
        });
        assert!(missing.starts_with("a service's method is `async`"));
    }

    #[test]
    fn a_message_that_has_no_name_outside_the_signature_is_refused() {
        for method in [
            parse_quote! {
                async fn a(&self, cx: &Context, request: Request<'_, Self>) -> Result<R, Status>;
            },
            parse_quote! {
                async fn b(&self, cx: &Context, request: Request<'_, Q>) -> Result<Self::R, Status>;
            },
            parse_quote! {
                async fn c(&self, cx: &Context, request: Request<'_, impl M>) -> Result<R, Status>;
            },
        ] {
            assert!(read(method).is_err());
        }
    }
}
