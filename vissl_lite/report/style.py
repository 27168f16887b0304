"""The style of all pages: light and dark, print, narrow screens."""

STYLE = """\
:root {
  color-scheme: light dark;
  --ink: #1b1d21; --soft: #565b63; --paper: #fff; --raised: #f4f5f7; --rule: #d5d8dd;
  --good: #17652f; --warn: #8a4b00; --link: #0b57a4;
  --s0: #0b5fae; --s1: #b3400a; --s2: #1b7236; --s3: #8a2f8f;
  --s4: #7d5a00; --s5: #56606b; --s6: #b0203a; --s7: #006a74;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e8eaed; --soft: #a9b0ba; --paper: #15171b; --raised: #22252b; --rule: #3c4149;
    --good: #7fd69a; --warn: #f0b868; --link: #82bbff;
    --s0: #6cb4ff; --s1: #ff9e6b; --s2: #6fd08c; --s3: #e39be8;
    --s4: #e8c34a; --s5: #b9c2cc; --s6: #ff8fa3; --s7: #5fd3dd;
  }
}
* { box-sizing: border-box; }
body {
  font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1120px; margin: 0 auto; padding: 1.2rem 1rem 4rem; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; padding-top: .5rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { max-width: 46rem; margin: .5rem 0; }
a { color: var(--link); }
.lead, figcaption, .soft { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; }
pre, code { font: .87rem/1.45 ui-monospace, monospace; background: var(--raised); }
pre { padding: .7rem .9rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { padding: .1em .3em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
caption { text-align: left; color: var(--soft); padding: .2rem 0;
  max-width: calc(100vw - 2rem); }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
thead th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 400; }
.num { text-align: right; }
td.num { white-space: nowrap; }
summary { cursor: pointer; color: var(--link); }
details { margin: .4rem 0; }
figure { margin: .8rem 0; }
svg { display: block; width: 100%; max-width: 560px; height: auto;
  font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.map { container-type: inline-size; }
.map svg { max-width: 900px; }
.map text { font-size: 34px; font-weight: 700; }
@container (max-width: 600px) { .map text { font-size: 54px; } }
.map text, svg text.halo { fill: #000; stroke: #fff; stroke-width: .3em; paint-order: stroke; }
svg.fixed { width: auto; max-width: 100%; }
.cell { display: block; margin: -.25rem 0; padding: .25rem .4rem; text-align: center; }
dt { font-weight: 600; margin-top: .4rem; }
dd { margin: 0 0 0 1rem; font-size: .9rem; }
dl { columns: 20rem; }
img { background: var(--raised); vertical-align: bottom; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr));
  gap: .4rem 1.6rem; }
.charts > *, .sheet > *, .beside > * { min-width: 0; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
  gap: .4rem 1.6rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 345px), 1fr));
  gap: .4rem 1.6rem; }
.beside > figure { margin: .2rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .35rem; align-items: flex-start;
  margin: .2rem 0 .9rem; padding: 0; list-style: none; }
.tiles figure { margin: 0; }
.tiles figcaption { font-size: .8rem; line-height: 1.25; margin-top: .15rem; }
.verdict { border-left: 4px solid var(--good); background: var(--raised); padding: .6rem .9rem; }
.verdict.warning { border-color: var(--warn); }
.verdict strong { color: var(--good); }
.verdict.warning strong { color: var(--warn); }
footer { margin-top: 3rem; color: var(--soft); font-size: .87rem; }
@media print {
  body { max-width: none; font-size: 11pt; padding: 0; }
  nav, summary { display: none; }
  figure, tr, .verdict, .tiles > * { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .wide { overflow: visible; }
}
"""
