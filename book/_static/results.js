// The table of results.html: DataTables, as the Python package itables brings it.
import DataTable from "./dt_bundle.js";

new DataTable("#rows", {
  pageLength: 25,
  lengthMenu: [25, 100, { label: "all", value: -1 }],
  order: [],
  columnControl: { target: 1, content: ["search"] },
});
