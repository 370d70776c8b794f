//! `#[service]`: the trait as it is implemented, and its server.

use std::collections::HashMap;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Attribute, Error, Ident, ItemTrait, ReturnType, TraitItem, TraitItemFn, Visibility,
    ext::IdentExt, parse_quote,
};

use crate::{
    attributes::{cfgs, deprecated},
    client,
    errors::{Errors, with_errors},
    lifetimes,
    method::Method,
    options,
};

/// The trait with its server and client; `compile_error!`s for what is not as expected.
pub(crate) fn expand(args: TokenStream, input: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let Ok(mut item) = syn::parse2::<ItemTrait>(input.clone()) else {
        errors.push_at(&input, "`#[service]` goes on a trait");
        return with_errors(&input, errors);
    };
    let given_name = options::service_name(args).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    let name = given_name.unwrap_or_else(|| item.ident.unraw().to_string());
    let can_generate = check_trait(&item, &mut errors);
    let mut methods = Vec::new();
    for member in &mut item.items {
        match member {
            TraitItem::Fn(function) => methods.extend(prepare(function, &name, &mut errors)),
            other => errors.push_at(other, NOT_A_METHOD),
        }
    }
    refuse_collisions(&mut methods, &mut errors);
    if !can_generate {
        return with_errors(&item, errors);
    }
    let errors = errors.into_tokens();
    let service = Service {
        visibility: &item.vis,
        item: &item.ident,
        server: format_ident!("{}Server", item.ident.unraw()),
        client: format_ident!("{}Client", item.ident.unraw()),
        cfgs: cfgs(&item.attrs).collect(),
        name,
        methods,
    };
    let server = service.server();
    let client = client::generate(&service);
    quote! {
        #errors
        #item
        #server
        #client
    }
}

/// A service whose trait has the expected form, as far as generated code depends on it.
pub(crate) struct Service<'a> {
    pub(crate) visibility: &'a Visibility,
    /// The trait.
    pub(crate) item: &'a Ident,
    pub(crate) server: Ident,
    pub(crate) client: Ident,
    pub(crate) cfgs: Vec<&'a Attribute>,
    /// The name on the wire.
    pub(crate) name: String,
    pub(crate) methods: Vec<Method>,
}

/// Whether the server and client of this trait can be written.
fn check_trait(item: &ItemTrait, errors: &mut Errors) -> bool {
    if let Some(token) = &item.unsafety {
        errors.push_at(token, "a service is not an `unsafe` trait");
        return false;
    }
    if let Some(token) = &item.auto_token {
        errors.push_at(token, "a service is not an `auto` trait");
        return false;
    }
    if !item.generics.params.is_empty() {
        errors.push_at(&item.generics.params, TRAIT_PARAMETER);
        return false;
    }
    true
}

/// Reads a method, and writes it as the trait has it: `fn` with `impl Future`.
fn prepare(function: &mut TraitItemFn, service: &str, errors: &mut Errors) -> Option<Method> {
    let id = options::take_rpc_id(&mut function.attrs).unwrap_or_else(|error| {
        errors.push(error);
        None
    });
    match Method::new(function, service) {
        Ok(mut method) => {
            method.id = id.unwrap_or(method.id);
            returns_future(function);
            Some(method)
        }
        Err(error) => {
            errors.push(error);
            // Implementations of the trait go on matching it.
            function.attrs.push(parse_quote!(#[allow(async_fn_in_trait)]));
            None
        }
    }
}

/// `async fn f() -> T` as `fn f() -> impl Future<Output = T>`.
fn returns_future(function: &mut TraitItemFn) {
    function.sig.asyncness = None;
    if let ReturnType::Type(_, output) = &mut function.sig.output {
        **output = parse_quote!(impl ::core::future::Future<Output = #output>);
    }
}

/// Refuses each method whose id or constant an earlier one has, at its name.
fn refuse_collisions(methods: &mut Vec<Method>, errors: &mut Errors) {
    let mut ids: HashMap<u32, String> = HashMap::new();
    let mut constants: HashMap<String, String> = HashMap::new();
    methods.retain(|method| {
        let Method { id, wire_name, .. } = method;
        let same_constant = constants.insert(method.constant.to_string(), wire_name.clone());
        if let Some(first) = same_constant {
            let message = format!(
                "`{wire_name}` and `{first}` have the same name but for upper and lower case; \
                 rename one of them"
            );
            errors.push(Error::new(method.name.span(), message));
            return false;
        }
        if let Some(first) = ids.get(id) {
            let message = format!(
                "`{wire_name}` and `{first}` have the same id on the wire, {id}; rename one of \
                 them or give it an id of its own with `#[rpc(id = N)]`"
            );
            errors.push(Error::new(method.name.span(), message));
            return false;
        }
        ids.insert(*id, wire_name.clone());
        true
    });
}

impl Service<'_> {
    fn server(&self) -> TokenStream {
        let Self { visibility, item, server, client, cfgs, name, .. } = self;
        let about = format!("Serves a [`{item}`]: reads each request, calls it, and replies.");
        let arms = self.methods.iter().map(|method| self.arm(method));
        let allow_deprecated = (self.methods.iter())
            .any(|method| deprecated(&method.attributes).next().is_some())
            .then(|| quote!(#[allow(deprecated)]));
        let prelude = (!self.methods.is_empty()).then(|| {
            quote!(
                use ::core::result::Result::{Err, Ok};
            )
        });
        quote! {
            #[doc = #about]
            #(#cfgs)*
            #visibility struct #server<S>(S);

            #(#cfgs)*
            impl<S: #item + 'static> #server<S> {
                /// Serves `service`.
                pub const fn new(service: S) -> Self {
                    Self(service)
                }
            }

            #(#cfgs)*
            #[automatically_derived]
            impl<S: #item + 'static> ::ringcall::Service for #server<S> {
                const NAME: &'static str = #name;
                const METHODS: &'static [::ringcall::MethodInfo] = #client::METHODS;

                // An async block has its captures once; an async fn would have them twice, and
                // the future is moved to its place for every call.
                #allow_deprecated
                #[inline]
                fn dispatch(
                    self: ::std::rc::Rc<Self>,
                    call: ::ringcall::Incoming,
                ) -> impl ::core::future::Future<Output = ()> + 'static {
                    async move {
                        #prelude
                        match call.method() {
                            #(#arms)*
                            _ => call.unknown_method(),
                        }
                    }
                }
            }
        }
    }

    /// What the server does when this method is called.
    fn arm(&self, method: &Method) -> TokenStream {
        let Self { item, client, .. } = self;
        let Method { name, constant, attributes, .. } = method;
        let cfgs = cfgs(attributes);
        let request = lifetimes::elided(&method.request);
        let reply = lifetimes::elided(&method.reply);
        quote! {
            #(#cfgs)*
            #client::#constant => match call.read::<#request>() {
                Ok(request) => {
                    call.reply::<#reply>(#item::#name(&self.0, call.context(), request).await)
                }
                Err(status) => call.reply::<#reply>(Err(status)),
            },
        }
    }
}

const NOT_A_METHOD: &str = "a service has methods only: what it needs beside them belongs to the \
    type that implements it";
const TRAIT_PARAMETER: &str = "a service has no parameters: the layouts of its messages, which \
    both ends compare, are of concrete types";
