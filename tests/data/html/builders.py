"""Parts of chat pages as their years drew them."""

SVG = '<svg stroke="currentColor" viewBox="0 0 24 24" class="h-4 w-4"><path d="M5 15V5h10"></path></svg>'


COPY = f'<button class="flex ml-auto gap-2">{SVG}Copy code</button>'


FORMULA = (
    '<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>x</mi><mo>&lt;</mo><mn>2</mn></mrow>'
    '<annotation encoding="application/x-tex">x &lt; \\frac{1}{2}</annotation></semantics></math></span>'
    '<span class="katex-html" aria-hidden="true"><span class="mord">x</span><span>&lt;</span></span></span>'
)


def box_2023(label: str, code: str, classes: str = "") -> str:
    return (
        '<pre><div class="bg-black mb-4 rounded-md"><div class="flex items-center text-gray-200 bg-gray-800 px-4 py-2">'
        f'<span class="">{label}</span>{COPY}</div><div class="p-4 overflow-y-auto">'
        f'<code class="!whitespace-pre hljs{classes}">{code}</code></div></div></pre>'
    )


def box_2024(label: str, code: str, classes: str = "") -> str:
    return (
        '<pre class="!overflow-visible"><div class="dark bg-gray-950 rounded-md"><div class="flex items-center text-xs '
        f'bg-token-surface-primary"><span>{label}</span><span class="" data-state="closed">{COPY}</span></div>'
        f'<div class="p-4 overflow-y-auto" dir="ltr"><code class="!whitespace-pre hljs{classes}">{code}</code></div>'
        "</div></pre>"
    )


def box_2025(label: str, code: str, classes: str = "") -> str:
    return (
        '<pre class="overflow-visible!"><div class="contain-inline-size rounded-2xl relative bg-token-sidebar">'
        f'<div class="flex items-center text-xs">{label}</div><div class="sticky top-9"><div class="absolute end-0">'
        '<button>Copy</button><button>Edit</button></div></div><div class="overflow-y-auto p-4" dir="ltr">'
        f'<code class="whitespace-pre!{classes}"><span><span>{code}</span></span></code></div></div></pre>'
    )
