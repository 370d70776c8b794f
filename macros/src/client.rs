//! The client that `#[service]` writes: constants for each method, and a function that calls it.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{LitInt, Type};

use crate::{
    attributes::{cfgs, deprecated, docs},
    lifetimes,
    method::{Answer, Kind, Method},
    service::Service,
};

/// The client of a service.
pub(crate) fn generate(service: &Service<'_>) -> TokenStream {
    let Service { visibility, item, client, cfgs, methods, .. } = service;
    let about = format!("Calls a [`{item}`] over a connection, which its clones share.");
    let constants = methods.iter().map(constants);
    let infos = methods.iter().map(info);
    let calls = methods.iter().map(call);
    let limit = limit(service);
    quote! {
        #[doc = #about]
        #(#cfgs)*
        #[derive(Clone)]
        #visibility struct #client(::ringcall::Client);

        #(#cfgs)*
        impl #client {
            #(#constants)*

            /// The methods, with the fingerprints of their messages.
            pub const METHODS: &'static [::ringcall::MethodInfo] = &[#(#infos),*];

            /// Connects to a server that has these methods.
            ///
            /// # Errors
            ///
            /// Where no address answers, or the server has these methods with other layouts.
            pub async fn connect(
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::Client::connect(address, Self::METHODS).await.map(Self)
            }

            /// Connects as [`connect`](Self::connect) does, with limits other than the default.
            ///
            /// # Errors
            ///
            /// As for [`connect`](Self::connect).
            pub async fn with(
                config: &::ringcall::ClientConfig,
                address: impl ::ringcall::ToSocketAddrs,
            ) -> ::core::result::Result<Self, ::ringcall::ConnectError> {
                ::ringcall::Client::connect_with(config, address, Self::METHODS).await.map(Self)
            }

            /// Calls over a connection that is there already, as the one that a call came on.
            pub fn on(client: ::ringcall::Client) -> Self {
                Self(client)
            }

            /// The connection.
            pub fn client(&self) -> &::ringcall::Client {
                &self.0
            }

            #(#calls)*
        }

        #limit
    }
}

/// Refuses more methods than a HELLO can list. The compiler counts them, as it alone knows which
/// are left by their `cfg`s.
fn limit(service: &Service<'_>) -> TokenStream {
    let Service { item, client, cfgs, .. } = service;
    let message = format!(
        "the service `{item}` has more methods than the two ends of a connection can compare, \
         which is `ringcall::limits::HELLO_METHODS_MAX`; make it several services"
    );
    quote_spanned! {item.span()=>
        #(#cfgs)*
        const _: () = ::core::assert!(
            #client::METHODS.len() <= ::ringcall::limits::HELLO_METHODS_MAX,
            #message
        );
    }
}

/// The constants of a method: its id, and what else is known of it.
fn constants(method: &Method) -> TokenStream {
    let Method { constant, id, wire_name, timeout_us, idempotent, no_cancel, .. } = method;
    let shard_by = method.shard_by.is_some();
    let cfgs: Vec<_> = cfgs(&method.attributes).collect();
    let about = format!("The id of `{wire_name}` on the wire.");
    let id = LitInt::new(&format!("{id:#010x}"), Span::call_site());
    let timeout_us = LitInt::new(&timeout_us.to_string(), Span::call_site());
    let info = info_name(method);
    let kind = Ident::new(method.kind.name(), Span::call_site());
    let answer = method.kind.answer();
    let request = layout(&method.request, answer.and_then(Answer::source));
    let reply = answer.map(|answer| layout(&answer.reply, answer.sink()));
    let reply = reply.unwrap_or_else(|| quote!(0));
    quote! {
        #[doc = #about]
        #(#cfgs)*
        pub const #constant: u32 = #id;

        #(#cfgs)*
        const #info: ::ringcall::MethodInfo = ::ringcall::MethodInfo {
            id: Self::#constant,
            name: #wire_name,
            request: #request,
            reply: #reply,
            kind: ::ringcall::MethodKind::#kind,
            timeout_us: #timeout_us,
            idempotent: #idempotent,
            no_cancel: #no_cancel,
            shard_by: #shard_by,
        };
    }
}

/// The entry of a method in the list of them.
fn info(method: &Method) -> TokenStream {
    let cfgs = cfgs(&method.attributes);
    let info = info_name(method);
    quote!(#(#cfgs)* Self::#info)
}

/// The name of the constant that holds what is known of a method. No method has it for its own.
fn info_name(method: &Method) -> Ident {
    format_ident!("__INFO_{}", method.constant)
}

/// The fingerprint of a message, and of the items that travel with it.
fn layout(message: &Type, items: Option<&Type>) -> TokenStream {
    let of = |ty| {
        let ty = lifetimes::statics(ty);
        quote!(<#ty as ::ringcall::Field>::LAYOUT)
    };
    let message = of(message);
    match items.map(of) {
        Some(items) => quote!(::ringcall::layout_with_items(#message, #items)),
        None => message,
    }
}

/// The function that calls a method.
fn call(method: &Method) -> TokenStream {
    let Method { name, attributes, .. } = method;
    let cfgs = cfgs(attributes);
    let deprecated = deprecated(attributes);
    let docs: Vec<_> = docs(attributes).collect();
    let blank = (!docs.is_empty()).then(|| quote!(#[doc = ""]));
    let about = format!(" Calls `{}`.", method.wire_name);
    let info = info_name(method);
    let request = lifetimes::of_call(&method.request);
    let (future, start, types) = match &method.kind {
        Kind::OneWay => ("OneWay", "one_way", quote!(#request)),
        Kind::Answered(answer) => {
            let reply = lifetimes::statics(&answer.reply);
            let error = lifetimes::statics(&answer.error);
            if answer.streams.is_empty() {
                ("Call", "call", quote!(#request, #reply, #error))
            } else {
                // What is sent may borrow from the caller; what is received lies in a buffer.
                let sent = items(answer.source().map(lifetimes::of_call));
                let received = items(answer.sink().map(lifetimes::statics));
                let types = quote!(#request, #sent, #received, #reply, #error);
                ("StreamCall", "stream", types)
            }
        }
    };
    let (future, start) = (format_ident!("{future}"), format_ident!("{start}"));
    let keyed = keyed(method);
    quote! {
        #(#docs)*
        #blank
        #[doc = #about]
        #(#cfgs)*
        #(#deprecated)*
        #[inline]
        pub fn #name<'call>(
            &'call self,
            request: &'call #request,
        ) -> ::ringcall::#future<'call, #types> {
            self.0.#start::<#types>(&Self::#info, request) #keyed
        }
    }
}

/// Gives a call the key of whose shard it is.
pub(crate) fn keyed(method: &Method) -> Option<TokenStream> {
    let hash = method.shard_by.as_ref()?.hash();
    Some(quote!(.with_key(::ringcall::RoutingKey::from_hash(#hash))))
}

fn items(ty: Option<Type>) -> TokenStream {
    match ty {
        Some(ty) => quote!(#ty),
        None => quote!(::ringcall::NoItems),
    }
}

#[cfg(test)]
mod tests {
    use syn::{TraitItemFn, parse_quote};

    use super::*;
    use crate::{options::RpcOptions, shard_by::ShardBy};

    fn method(options: RpcOptions, function: TraitItemFn) -> Method {
        Method::new(&function, &options, "Kv").unwrap()
    }

    fn text(tokens: TokenStream) -> String {
        tokens.to_string().replace(' ', "")
    }

    fn contains(tokens: TokenStream, part: TokenStream) {
        let (tokens, part) = (text(tokens), text(part));
        assert!(tokens.contains(&part), "`{part}` is not in `{tokens}`");
    }

    #[test]
    fn what_is_known_of_a_method_is_a_constant() {
        let options = RpcOptions {
            id: Some(7),
            timeout_us: Some(5_000),
            idempotent: true,
            ..RpcOptions::default()
        };
        let get = method(
            options,
            parse_quote! {
                async fn get(&self, cx: &Context, q: Request<'_, Get<'_>>) -> Result<Got, Status>;
            },
        );
        let info = quote! {
            const __INFO_GET: ::ringcall::MethodInfo = ::ringcall::MethodInfo {
                id: Self::GET,
                name: "Kv.get",
                request: <Get<'static> as ::ringcall::Field>::LAYOUT,
                reply: <Got as ::ringcall::Field>::LAYOUT,
                kind: ::ringcall::MethodKind::Unary,
                timeout_us: 5000,
                idempotent: true,
                no_cancel: false,
                shard_by: false,
            };
        };
        contains(constants(&get), info);
        contains(
            constants(&get),
            quote!(
                pub const GET: u32 = 0x00000007;
            ),
        );
    }

    #[test]
    fn a_call_with_a_key_says_whose_shard_it_is() {
        let shard_by = ShardBy::parse(quote!(user.id)).unwrap();
        let get = method(
            RpcOptions { shard_by: Some(shard_by), ..RpcOptions::default() },
            parse_quote! {
                async fn get(&self, cx: &Context, q: Request<'_, Get>) -> Result<Got, Status>;
            },
        );
        contains(constants(&get), quote!(shard_by: true));
        let hash = quote!(::ringcall::ShardKey::shard_hash(&request.user.id));
        let body = quote! {
            self.0.call::<Get, Got, Status>(&Self::__INFO_GET, request)
                .with_key(::ringcall::RoutingKey::from_hash(#hash))
        };
        contains(call(&get), body);
    }

    #[test]
    fn a_one_way_method_has_no_layout_of_a_reply() {
        let options = RpcOptions { oneway: true, no_cancel: true, ..RpcOptions::default() };
        let note = method(
            options,
            parse_quote! {
                async fn note(&self, cx: &Context, request: Request<'_, Line>);
            },
        );
        let part = quote! {
            reply: 0,
            kind: ::ringcall::MethodKind::OneWay,
            timeout_us: 0,
            idempotent: false,
            no_cancel: true,
            shard_by: false,
        };
        contains(constants(&note), part);
        let future = quote! {
            -> ::ringcall::OneWay<'call, Line> {
                self.0.one_way::<Line>(&Self::__INFO_NOTE, request)
            }
        };
        contains(call(&note), future);
    }

    #[test]
    fn items_count_in_the_layout_of_what_they_travel_with() {
        let (row, part) = (quote!(sink: Sink<'_, Row<'_>>), quote!(source: Source<Part<'_>>));
        let part_type = quote!(Part<'call>);
        let none = quote!(::ringcall::NoItems);
        let with_parts = quote! {
            ::ringcall::layout_with_items(
                <Q as ::ringcall::Field>::LAYOUT,
                <Part<'static> as ::ringcall::Field>::LAYOUT
            )
        };
        let with_rows = quote! {
            ::ringcall::layout_with_items(
                <R as ::ringcall::Field>::LAYOUT,
                <Row<'static> as ::ringcall::Field>::LAYOUT
            )
        };
        let (q, r) =
            (quote!(<Q as ::ringcall::Field>::LAYOUT), quote!(<R as ::ringcall::Field>::LAYOUT));
        for (streams, kind, request, reply, sent, received) in [
            (quote!(#row), "ServerStream", &q, &with_rows, &none, &quote!(Row<'static>)),
            (quote!(#part), "ClientStream", &with_parts, &r, &part_type, &none),
            (
                quote!(#row, #part),
                "TwoWay",
                &with_parts,
                &with_rows,
                &part_type,
                &quote!(Row<'static>),
            ),
            (
                quote!(#part, #row),
                "TwoWay",
                &with_parts,
                &with_rows,
                &part_type,
                &quote!(Row<'static>),
            ),
        ] {
            let method = method(
                RpcOptions::default(),
                parse_quote! {
                    async fn f(&self, cx: &Context, q: Request<'_, Q>, #streams) -> Result<R, E>;
                },
            );
            let kind = Ident::new(kind, Span::call_site());
            let info =
                quote!(request: #request, reply: #reply, kind: ::ringcall::MethodKind::#kind);
            contains(constants(&method), info);
            let types = quote!(Q, #sent, #received, R, E);
            let future = quote! {
                -> ::ringcall::StreamCall<'call, #types> {
                    self.0.stream::<#types>(&Self::__INFO_F, request)
                }
            };
            contains(call(&method), future);
        }
    }

    #[test]
    fn a_call_borrows_its_request_and_owns_its_outcome() {
        let echo = method(
            RpcOptions::default(),
            parse_quote! {
                async fn echo<'a>(
                    &self,
                    cx: &Context,
                    request: Request<'a, Blob<'a>>,
                ) -> Result<Blob<'a>, Denied<'a>>;
            },
        );
        let types = quote!(Blob<'call>, Blob<'static>, Denied<'static>);
        let function = quote! {
            pub fn echo<'call>(
                &'call self,
                request: &'call Blob<'call>,
            ) -> ::ringcall::Call<'call, #types> {
                self.0.call::<#types>(&Self::__INFO_ECHO, request)
            }
        };
        contains(call(&echo), function);
    }
}
