// The table of results.html: DataTables, as the Python package itables brings it.
import DataTable from "./dt_bundle.js";

// DataTables is dark by a class where the book is dark by an attribute.
const root = document.documentElement;
const follow = () => root.classList.toggle("dark", root.dataset.theme === "dark");
follow();
new MutationObserver(follow).observe(root, { attributeFilter: ["data-theme"] });

new DataTable("#rows", {
  pageLength: 25,
  lengthMenu: [25, 100, { label: "all", value: -1 }],
  order: [],
  columnControl: { target: 1, content: ["search"] },
});
