// How search ranks what it finds: pages of the book before names of functions, since every module is called aae_prior.
// A name that is asked for in full comes first.
var Scorer = {
  objNameMatch: 30,
  objPartialMatch: 1,
  objPrio: { 0: 0, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

// An excerpt shows the article, and not the buttons that the theme counts as its beginning.
addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return; // another page than that of the search
  const textOf = Search.htmlToText;
  Search.htmlToText = (page, anchor) => {
    const article = new DOMParser().parseFromString(page, "text/html").querySelector("article");
    return textOf(article ? `<div role="main">${article.innerHTML}</div>` : page, anchor);
  };
});
